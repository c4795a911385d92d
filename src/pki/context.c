/* Checking a node's files, and the TLS context made of them. The happy path: load authority,
 * certificate and key; they belong together, are valid now and say who we are. Every other end is
 * an error that names the file. */
#include "base/check.h"
#include "pki/pki_priv.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <time.h>

static const unsigned char alpn_h2[] = {2, 'h', '2'};

/* What a node has loaded; anything may be NULL. */
struct loaded {
        X509 *ca;
        X509 *certificate;
        EVP_PKEY *key;
        X509_CRL *crl;
};

static void loaded_fini(struct loaded *loaded)
{
        X509_free(loaded->ca);
        X509_free(loaded->certificate);
        EVP_PKEY_free(loaded->key);
        X509_CRL_free(loaded->crl);
}

/* A list that is named has to be there: without it, who was revoked would be let in. */
static enum err crl_load(const char *path, X509_CRL **ret_crl, struct pki_error *error)
{
        if (path == NULL)
                return ERR_NONE;
        FILE *file = fopen(path, "re");
        if (file == NULL)
                return pki_fail(error, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO,
                                "cannot read the revocation list %s: %s; put it there, or name "
                                "none",
                                path, strerrordesc_np(errno));
        *ret_crl = PEM_read_X509_CRL(file, NULL, NULL, NULL);
        fclose(file);
        if (*ret_crl == NULL)
                return pki_fail_ssl(error, ERR_MALFORMED,
                                    "%s holds no revocation list in PEM form; make it again", path);
        return ERR_NONE;
}

static enum err loaded_init(struct loaded *loaded, const struct pki_files *files,
                            struct pki_error *error)
{
        memset(loaded, 0, sizeof *loaded);
        enum err err = pki_certificate_load(files->ca, &loaded->ca, error);
        if (err == ERR_NONE)
                err = pki_certificate_load(files->cert, &loaded->certificate, error);
        if (err == ERR_NONE)
                err = pki_key_load(files->key, &loaded->key, error);
        if (err == ERR_NONE)
                err = crl_load(files->crl, &loaded->crl, error);
        return err;
}

static X509_STORE *store_new(const struct loaded *loaded)
{
        X509_STORE *store = X509_STORE_new();
        if (store == NULL)
                return NULL;
        bool made = X509_STORE_add_cert(store, loaded->ca) == 1;
        if (made && loaded->crl != NULL)
                made = X509_STORE_add_crl(store, loaded->crl) == 1 &&
                       X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK) == 1;
        if (made)
                return store;
        X509_STORE_free(store);
        return NULL;
}

/* What `X509_verify_cert` thinks of our own certificate: X509_V_OK or a reason. */
static int chain_verify(X509_STORE *store, X509 *certificate)
{
        int result = X509_V_ERR_UNSPECIFIED;
        X509_STORE_CTX *context = X509_STORE_CTX_new();
        if (context != NULL && X509_STORE_CTX_init(context, store, certificate, NULL) == 1) {
                bool good = X509_verify_cert(context) == 1;
                result = good ? X509_V_OK : X509_STORE_CTX_get_error(context);
                if (!good && result == X509_V_OK)
                        result = X509_V_ERR_UNSPECIFIED;
        }
        X509_STORE_CTX_free(context);
        return result;
}

static enum err identity_check(const X509 *certificate, const char *path,
                               const struct pki_identity *expected, struct pki_error *error)
{
        struct pki_identity found;
        char found_uri[PKI_URI_MAX], expected_uri[PKI_URI_MAX];
        if (pki_certificate_identity(certificate, &found) != ERR_NONE)
                return pki_fail(error, ERR_INVALID,
                                "the certificate %s names no node (a URI meridian://cluster/"
                                "region/node); issue it again",
                                path);
        if (expected == NULL || pki_identity_equal(&found, expected))
                return ERR_NONE;
        pki_identity_format(&found, found_uri);
        pki_identity_format(expected, expected_uri);
        return pki_fail(error, ERR_INVALID,
                        "the certificate %s is for %s, but this node is %s: issue one for it, or "
                        "correct cluster, region and node",
                        path, found_uri, expected_uri);
}

static enum err loaded_check(const struct loaded *loaded, const struct pki_files *files,
                             X509_STORE *store, const struct pki_identity *expected,
                             struct pki_error *error)
{
        if (X509_check_private_key(loaded->certificate, loaded->key) != 1)
                return pki_fail_ssl(error, ERR_INVALID,
                                    "the key %s does not belong to the certificate %s: issue both "
                                    "again",
                                    files->key, files->cert);
        int verified = chain_verify(store, loaded->certificate);
        if (verified != X509_V_OK)
                return pki_fail(error, ERR_REFUSED,
                                "the certificate %s is not accepted by the authority %s: %s; "
                                "issue a new one, and check the clock",
                                files->cert, files->ca, X509_verify_cert_error_string(verified));
        return identity_check(loaded->certificate, files->cert, expected, error);
}

static enum err days_left(const X509 *certificate, int64_t *ret_days)
{
        int days, seconds;
        if (ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(certificate)) != 1)
                return ERR_MALFORMED;
        *ret_days = days;
        return ERR_NONE;
}

enum err pki_node_verify(const struct pki_files *files, const struct pki_identity *expected,
                         int64_t *ret_days_left, struct pki_error *error)
{
        struct loaded loaded;
        X509_STORE *store = NULL;
        int64_t days = 0;
        enum err err = loaded_init(&loaded, files, error);
        if (err != ERR_NONE)
                goto out;
        store = store_new(&loaded);
        if (store == NULL) {
                err = pki_fail_ssl(error, ERR_NOMEM, "cannot use the authority %s", files->ca);
                goto out;
        }
        err = loaded_check(&loaded, files, store, expected, error);
        if (err == ERR_NONE)
                err = days_left(loaded.certificate, &days);
        if (err == ERR_NONE && ret_days_left != NULL)
                *ret_days_left = days;
out:
        X509_STORE_free(store);
        loaded_fini(&loaded);
        return err;
}

/* The server's choice of protocol: "h2" or the handshake fails. */
static int alpn_choose(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                       const unsigned char *in, unsigned in_len, void *user)
{
        (void)ssl;
        (void)user;
        unsigned at = 0;
        while (at < in_len) {
                unsigned len = in[at];
                if (len >= in_len - at)
                        break;
                if (len == 2 && memcmp(in + at + 1, "h2", 2) == 0) {
                        *out = in + at + 1;
                        *out_len = 2;
                        return SSL_TLSEXT_ERR_OK;
                }
                at += len + 1;
        }
        return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* Takes `store` in every case. */
static bool context_fill(SSL_CTX *context, const struct loaded *loaded, X509_STORE *store)
{
        SSL_CTX_set_cert_store(context, store);
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
        SSL_CTX_set_verify_depth(context, 1);
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
        SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET);
        SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE |
                                          SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                          SSL_MODE_RELEASE_BUFFERS);
        SSL_CTX_set_alpn_select_cb(context, alpn_choose, NULL);
        /* SSL_CTX_set_alpn_protos returns 0 for success, unlike its neighbours. */
        return SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) == 1 &&
               SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) == 1 &&
               SSL_CTX_set_num_tickets(context, 0) == 1 &&
               SSL_CTX_set_alpn_protos(context, alpn_h2, sizeof alpn_h2) == 0 &&
               SSL_CTX_use_certificate(context, loaded->certificate) == 1 &&
               SSL_CTX_use_PrivateKey(context, loaded->key) == 1;
}

enum err pki_context_new(const struct pki_files *files, const struct pki_identity *expected,
                         struct ssl_ctx_st **ret_context, struct pki_error *error)
{
        struct loaded loaded;
        SSL_CTX *context = NULL;
        X509_STORE *store = NULL;
        enum err err = loaded_init(&loaded, files, error);
        if (err != ERR_NONE)
                goto out;
        store = store_new(&loaded);
        if (store != NULL)
                err = loaded_check(&loaded, files, store, expected, error);
        if (store == NULL || err != ERR_NONE) {
                X509_STORE_free(store);
                if (err == ERR_NONE)
                        err = pki_fail_ssl(error, ERR_NOMEM, "cannot use the authority %s",
                                           files->ca);
                goto out;
        }
        context = SSL_CTX_new(TLS_method());
        if (context == NULL)
                X509_STORE_free(store);
        if (context == NULL || !context_fill(context, &loaded, store)) {
                err = pki_fail_ssl(error, ERR_IO, "cannot set up TLS with %s", files->cert);
                SSL_CTX_free(context);
                goto out;
        }
        *ret_context = context;
out:
        loaded_fini(&loaded);
        return err;
}
