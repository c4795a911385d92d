/* Making the authority and the nodes' certificates.
 *
 * The authority's key stays in its folder and is used only here. Serials are random (127 bits), so
 * no counter has to be kept over copies of the folder. A failure leaves at most a file ending in
 * ".new", which the next attempt replaces. The key of a node is written before its certificate: a
 * crash in between leaves a pair that pki_node_verify refuses and that issuing again repairs. */
#include "base/check.h"
#include "pki/pki_priv.h"

#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <time.h>
#include <unistd.h>

/* One extension: its number and its text in OpenSSL's own notation. */
struct extension {
        int nid;
        const char *text;
};

static const struct extension ca_extensions[] = {
        {NID_basic_constraints, "critical,CA:TRUE,pathlen:0"},
        {NID_key_usage, "critical,keyCertSign,cRLSign"},
        {NID_subject_key_identifier, "hash"},
};

static const struct extension node_extensions[] = {
        {NID_basic_constraints, "critical,CA:FALSE"}, {NID_key_usage, "critical,digitalSignature"},
        {NID_ext_key_usage, "serverAuth,clientAuth"}, {NID_subject_key_identifier, "hash"},
        {NID_authority_key_identifier, "keyid"},
};

static bool extension_add(X509 *certificate, X509 *issuer, struct extension extension)
{
        X509V3_CTX context;
        X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
        X509_EXTENSION *made = X509V3_EXT_conf_nid(NULL, &context, extension.nid, extension.text);
        if (made == NULL)
                return false;
        bool added = X509_add_ext(certificate, made, -1) == 1;
        X509_EXTENSION_free(made);
        return added;
}

static bool extensions_add(X509 *certificate, X509 *issuer, const struct extension *extensions,
                           size_t count)
{
        for (size_t i = 0; i < count; i++) {
                if (!extension_add(certificate, issuer, extensions[i]))
                        return false;
        }
        return true;
}

/* 16 random bytes with the top bit clear and the next one set: positive, of one length. */
static bool serial_set(X509 *certificate)
{
        uint8_t raw[16];
        if (RAND_bytes(raw, sizeof raw) != 1)
                return false;
        raw[0] = (uint8_t)((raw[0] & 0x3f) | 0x40);
        BIGNUM *number = BN_bin2bn(raw, sizeof raw, NULL);
        bool set = number != NULL &&
                   BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate)) != NULL;
        BN_free(number);
        return set;
}

/* Years from 2050 on need the longer form of time, which X509_time_adj_ex chooses by itself. */
static bool time_set(ASN1_TIME *at, int64_t from_now_s)
{
        time_t now = time(NULL);
        return X509_time_adj_ex(at, (int)(from_now_s / 86400), (long)(from_now_s % 86400), &now) !=
               NULL;
}

static bool subject_set(X509 *certificate, const char *organization, const char *name)
{
        X509_NAME *subject = X509_get_subject_name(certificate);
        return X509_NAME_add_entry_by_txt(subject, "O", MBSTRING_ASC,
                                          (const unsigned char *)organization, -1, -1, 0) == 1 &&
               X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name,
                                          -1, -1, 0) == 1;
}

/* A certificate that lacks only issuer, extensions and signature. */
static X509 *certificate_begin(EVP_PKEY *key, struct pki_validity validity, const char *cluster,
                               const char *name)
{
        X509 *certificate = X509_new();
        if (certificate != NULL && X509_set_version(certificate, X509_VERSION_3) == 1 &&
            serial_set(certificate) && subject_set(certificate, cluster, name) &&
            time_set(X509_getm_notBefore(certificate), validity.from_s) &&
            time_set(X509_getm_notAfter(certificate), validity.until_s) &&
            X509_set_pubkey(certificate, key) == 1)
                return certificate;
        X509_free(certificate);
        return NULL;
}

/* One meridian URI as the only name. */
static bool identity_add(X509 *certificate, const struct pki_identity *identity)
{
        char text[PKI_URI_MAX + 8] = "URI:";
        pki_identity_format(identity, text + 4);
        return extension_add(certificate, certificate,
                             (struct extension){NID_subject_alt_name, text});
}

static X509 *ca_certificate(EVP_PKEY *key, const char *cluster, struct pki_validity validity)
{
        X509 *certificate = certificate_begin(key, validity, cluster, "Meridian authority");
        if (certificate != NULL &&
            X509_set_issuer_name(certificate, X509_get_subject_name(certificate)) == 1 &&
            extensions_add(certificate, certificate, ca_extensions, COUNT_OF(ca_extensions)) &&
            X509_sign(certificate, key, EVP_sha256()) > 0)
                return certificate;
        X509_free(certificate);
        return NULL;
}

struct authority {
        X509 *certificate;
        EVP_PKEY *key;
};

static X509 *node_certificate(const struct authority *authority, EVP_PKEY *key,
                              const struct pki_identity *identity, struct pki_validity validity)
{
        char name[PKI_NAME_MAX + 16];
        snprintf(name, sizeof name, "%s/%u", identity->region, identity->node);
        X509 *certificate = certificate_begin(key, validity, identity->cluster, name);
        if (certificate != NULL &&
            X509_set_issuer_name(certificate, X509_get_subject_name(authority->certificate)) == 1 &&
            extensions_add(certificate, authority->certificate, node_extensions,
                           COUNT_OF(node_extensions)) &&
            identity_add(certificate, identity) &&
            X509_sign(certificate, authority->key, EVP_sha256()) > 0)
                return certificate;
        X509_free(certificate);
        return NULL;
}

/* Writes the key, then the certificate that belongs to it. */
static enum err pair_write(const char *key_path, EVP_PKEY *key, const char *certificate_path,
                           X509 *certificate, struct pki_error *error)
{
        enum err err = pki_file_write(key_path, 0600, pki_key_fill, key, error);
        if (err != ERR_NONE)
                return err;
        return pki_file_write(certificate_path, 0644, pki_certificate_fill, certificate, error);
}

enum err pki_ca_make(const char *dir, const char *cluster, struct pki_validity validity,
                     struct pki_error *error)
{
        char key_path[PKI_PATH_MAX], certificate_path[PKI_PATH_MAX];
        if (!pki_name_valid(cluster))
                return pki_fail(error, ERR_INVALID,
                                "'%s' cannot name a cluster: use 1 to %d letters, digits, '-' "
                                "or '_'",
                                cluster, PKI_NAME_MAX);
        if (!pki_path(key_path, dir, "ca.key") || !pki_path(certificate_path, dir, "ca.crt"))
                return pki_fail(error, ERR_INVALID, "%s: the name is too long", dir);
        if (access(certificate_path, F_OK) == 0)
                return pki_fail(error, ERR_EXISTS,
                                "there is an authority in %s already; every node trusts it, so it "
                                "is not replaced: move it away to begin anew",
                                dir);
        enum err err = pki_dir_make(dir, error);
        if (err != ERR_NONE)
                return err;
        EVP_PKEY *key = EVP_EC_gen("P-256");
        X509 *certificate = key == NULL ? NULL : ca_certificate(key, cluster, validity);
        if (certificate == NULL)
                err = pki_fail_ssl(error, ERR_IO, "cannot make the authority of %s", dir);
        else
                err = pair_write(key_path, key, certificate_path, certificate, error);
        X509_free(certificate);
        EVP_PKEY_free(key);
        return err;
}

/* The cluster that an authority's certificate names: its organization. Borrowed; empty where it
 * names none. */
static struct bytes authority_cluster(const X509 *certificate)
{
        const X509_NAME *subject = X509_get_subject_name(certificate);
        int at = X509_NAME_get_index_by_NID(subject, NID_organizationName, -1);
        if (at < 0)
                return bytes_of(NULL, 0);
        const ASN1_STRING *text = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
        return bytes_of(ASN1_STRING_get0_data(text), (size_t)ASN1_STRING_length(text));
}

enum err pki_ca_cluster(const char *dir, char ret_cluster[PKI_NAME_MAX + 1],
                        struct pki_error *error)
{
        char path[PKI_PATH_MAX];
        X509 *certificate = NULL;
        if (!pki_path(path, dir, "ca.crt"))
                return pki_fail(error, ERR_INVALID, "%s: the name is too long", dir);
        enum err err = pki_certificate_load(path, &certificate, error);
        if (err != ERR_NONE)
                return err;
        struct bytes name = authority_cluster(certificate);
        int len = snprintf(ret_cluster, PKI_NAME_MAX + 1, "%.*s", (int)name.len,
                           name.len == 0 ? "" : (const char *)name.ptr);
        if (len < 0 || (size_t)len != name.len || !pki_name_valid(ret_cluster))
                err = pki_fail(
                        error, ERR_MALFORMED,
                        "%s is not the authority of a cluster: `meridian pki init` makes one",
                        path);
        X509_free(certificate);
        return err;
}

static void authority_fini(struct authority *authority)
{
        X509_free(authority->certificate);
        EVP_PKEY_free(authority->key);
}

/* Loads the authority and checks that key and certificate are a pair. */
static enum err authority_load(const char *dir, struct authority *ret_authority,
                               struct pki_error *error)
{
        char path[PKI_PATH_MAX];
        struct authority authority = {NULL, NULL};
        enum err err = ERR_INVALID;
        if (pki_path(path, dir, "ca.crt"))
                err = pki_certificate_load(path, &authority.certificate, error);
        if (err == ERR_NONE && pki_path(path, dir, "ca.key"))
                err = pki_key_load(path, &authority.key, error);
        if (err == ERR_NONE && X509_check_private_key(authority.certificate, authority.key) != 1)
                err = pki_fail_ssl(error, ERR_CORRUPT,
                                   "%s/ca.key does not belong to %s/ca.crt: restore both from one "
                                   "backup",
                                   dir, dir);
        if (err != ERR_NONE) {
                authority_fini(&authority);
                return err;
        }
        *ret_authority = authority;
        return ERR_NONE;
}

/* One line in the ledger of what was issued: what a revocation list is made from. */
static enum err issued_note(const char *ca_dir, X509 *certificate,
                            const struct pki_identity *identity, struct pki_error *error)
{
        char path[PKI_PATH_MAX], uri[PKI_URI_MAX], line[PKI_URI_MAX + 128];
        struct tm end;
        if (!pki_path(path, ca_dir, "ca.issued") ||
            ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &end) != 1)
                return pki_fail(error, ERR_INVALID, "%s: the name is too long", ca_dir);
        BIGNUM *serial = ASN1_INTEGER_to_BN(X509_get_serialNumber(certificate), NULL);
        char *hex = serial == NULL ? NULL : BN_bn2hex(serial);
        BN_free(serial);
        if (hex == NULL)
                return pki_fail_ssl(error, ERR_NOMEM, "%s: cannot note the serial", path);
        pki_identity_format(identity, uri);
        snprintf(line, sizeof line, "%s %s %04d-%02d-%02d\n", hex, uri, end.tm_year + 1900,
                 end.tm_mon + 1, end.tm_mday);
        OPENSSL_free(hex);
        return pki_file_append(path, line, error);
}

/* The ledger first: a certificate that exists is always in it. */
static enum err node_write(const char *ca_dir, const char *node_dir, X509 *authority,
                           X509 *certificate, EVP_PKEY *key, const struct pki_identity *identity,
                           struct pki_error *error)
{
        char key_path[PKI_PATH_MAX], certificate_path[PKI_PATH_MAX], ca_path[PKI_PATH_MAX];
        if (!pki_path(key_path, node_dir, "node.key") ||
            !pki_path(certificate_path, node_dir, "node.crt") ||
            !pki_path(ca_path, node_dir, "ca.crt"))
                return pki_fail(error, ERR_INVALID, "%s: the name is too long", node_dir);
        enum err err = pki_dir_make(node_dir, error);
        if (err == ERR_NONE)
                err = issued_note(ca_dir, certificate, identity, error);
        if (err == ERR_NONE)
                err = pki_file_write(ca_path, 0644, pki_certificate_fill, authority, error);
        if (err == ERR_NONE)
                err = pair_write(key_path, key, certificate_path, certificate, error);
        return err;
}

enum err pki_node_issue(const char *ca_dir, const char *node_dir,
                        const struct pki_identity *identity, struct pki_validity validity,
                        struct pki_error *error)
{
        struct pki_identity checked;
        struct authority authority;
        if (pki_identity_set(&checked, identity->cluster, identity->region, identity->node) !=
            ERR_NONE)
                return pki_fail(error, ERR_INVALID,
                                "cluster '%s', region '%s', node %u is no identity: use letters, "
                                "digits, '-' or '_', and a number above 0",
                                identity->cluster, identity->region, identity->node);
        enum err err = authority_load(ca_dir, &authority, error);
        if (err != ERR_NONE)
                return err;
        EVP_PKEY *key = NULL;
        X509 *certificate = NULL;
        if (!bytes_equal(authority_cluster(authority.certificate),
                         bytes_of_str(identity->cluster))) {
                err = pki_fail(error, ERR_INVALID,
                               "the authority in %s is not that of cluster '%s'", ca_dir,
                               identity->cluster);
                goto out;
        }
        key = EVP_EC_gen("P-256");
        if (key != NULL)
                certificate = node_certificate(&authority, key, &checked, validity);
        if (certificate == NULL)
                err = pki_fail_ssl(error, ERR_IO, "cannot make a certificate for %s", node_dir);
        else
                err = node_write(ca_dir, node_dir, authority.certificate, certificate, key,
                                 &checked, error);
out:
        X509_free(certificate);
        EVP_PKEY_free(key);
        authority_fini(&authority);
        return err;
}
