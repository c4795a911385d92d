/* What connections to Redis by TLS share. Files are read once, at the start, so that a mistake in
 * them is told before anything runs. */
#include "engine/engine_priv.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

static bool fail(struct engine_tls_error *error, const char *format, ...) PRINTF_LIKE(2, 3);

static bool fail(struct engine_tls_error *error, const char *format, ...)
{
        va_list arguments;
        va_start(arguments, format);
        (void)vsnprintf(error->text, sizeof error->text, format, arguments);
        va_end(arguments);
        ERR_clear_error();
        return false;
}

static const char *reason(void)
{
        const char *text = ERR_reason_error_string(ERR_peek_last_error());
        return text != NULL ? text : "it is of no known form";
}

static bool file_readable(const char *path, bool secret, struct engine_tls_error *error)
{
        struct stat info;
        FILE *file = fopen(path, "re");
        if (file == NULL || fstat(fileno(file), &info) != 0) {
                int number = errno;
                if (file != NULL)
                        (void)fclose(file);
                return fail(error, "%s cannot be read: %s; it is named for TLS to Redis", path,
                            strerrordesc_np(number));
        }
        (void)fclose(file);
        if (secret && (info.st_mode & (S_IRWXG | S_IRWXO)) != 0)
                return fail(error, "%s can be read or written by others: chmod 600 it", path);
        return true;
}

static bool authority_load(SSL_CTX *context, const char *path, struct engine_tls_error *error)
{
        if (!file_readable(path, false, error))
                return false;
        if (SSL_CTX_load_verify_file(context, path) != 1)
                return fail(error, "%s holds no certificate of an authority (PEM): %s", path,
                            reason());
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
        return true;
}

static bool own_load(SSL_CTX *context, const struct engine_tls *files,
                     struct engine_tls_error *error)
{
        if (files->cert[0] == 0)
                return true;
        if (!file_readable(files->cert, false, error) || !file_readable(files->key, true, error))
                return false;
        if (SSL_CTX_use_certificate_chain_file(context, files->cert) != 1)
                return fail(error, "%s holds no certificate (PEM): %s", files->cert, reason());
        if (SSL_CTX_use_PrivateKey_file(context, files->key, SSL_FILETYPE_PEM) != 1)
                return fail(error,
                            "%s is no key (PEM, without a password) for the certificate %s: %s",
                            files->key, files->cert, reason());
        return true;
}

static bool context_fill(SSL_CTX *context, const struct engine_tls *files,
                         struct engine_tls_error *error)
{
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
        SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION);
        SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE |
                                          SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                          SSL_MODE_RELEASE_BUFFERS);
        if (SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1)
                return fail(error, "TLS 1.2 cannot be set up: %s", reason());
        return authority_load(context, files->ca, error) && own_load(context, files, error);
}

struct ssl_ctx_st *engine_tls_new(const struct engine_tls *files, struct engine_tls_error *error)
{
        SSL_CTX *context = SSL_CTX_new(TLS_client_method());
        if (context == NULL) {
                (void)fail(error, "TLS cannot be set up: %s", reason());
                return NULL;
        }
        if (context_fill(context, files, error))
                return context;
        SSL_CTX_free(context);
        return NULL;
}

void engine_tls_free(struct ssl_ctx_st *tls)
{
        SSL_CTX_free(tls);
}
