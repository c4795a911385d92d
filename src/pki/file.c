/* Files of certificates and keys. What is written appears whole or not at all; what is read must be
 * what it should be, and a key must be nobody else's. Failures name the file and what to do. */
#include "pki/pki_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

static void __attribute__((format(printf, 2, 0)))
fail_text(struct pki_error *error, const char *format, va_list args)
{
        if (error != NULL)
                vsnprintf(error->text, sizeof error->text, format, args);
}

enum err pki_fail(struct pki_error *error, enum err err, const char *format, ...)
{
        va_list args;
        va_start(args, format);
        fail_text(error, format, args);
        va_end(args);
        ERR_clear_error();
        return err;
}

enum err pki_fail_ssl(struct pki_error *error, enum err err, const char *format, ...)
{
        const char *reason = ERR_reason_error_string(ERR_peek_last_error());
        va_list args;
        va_start(args, format);
        fail_text(error, format, args);
        va_end(args);
        if (error != NULL && reason != NULL) {
                size_t len = strlen(error->text);
                snprintf(error->text + len, sizeof error->text - len, " (%s)", reason);
        }
        ERR_clear_error();
        return err;
}

bool pki_path(char path[PKI_PATH_MAX], const char *dir, const char *name)
{
        int len = snprintf(path, PKI_PATH_MAX, "%s/%s", dir, name);
        return len > 0 && len < PKI_PATH_MAX;
}

/* Creates one folder; one that exists is fine. */
static bool dir_make_one(const char *dir)
{
        return mkdir(dir, 0700) == 0 || errno == EEXIST;
}

enum err pki_dir_make(const char *dir, struct pki_error *error)
{
        char part[PKI_PATH_MAX];
        size_t len = strlen(dir);
        struct stat info;
        if (len == 0 || len >= sizeof part)
                return pki_fail(error, ERR_INVALID, "'%s' is not a usable folder name", dir);
        for (size_t i = 1; i <= len; i++) {
                if (dir[i] != '/' && dir[i] != '\0')
                        continue;
                memcpy(part, dir, i);
                part[i] = '\0';
                if (!dir_make_one(part))
                        return pki_fail(error, ERR_IO, "cannot create the folder %s: %s", part,
                                        strerrordesc_np(errno));
        }
        if (stat(dir, &info) != 0 || !S_ISDIR(info.st_mode))
                return pki_fail(error, ERR_IO, "%s is not a folder: move it away", dir);
        return ERR_NONE;
}

/* Makes a rename in the folder of `path` durable. */
static bool dir_sync(const char *path)
{
        char dir[PKI_PATH_MAX];
        const char *slash = strrchr(path, '/');
        size_t len = slash == NULL ? 0 : (size_t)(slash - path);
        memcpy(dir, path, len);
        dir[len] = '\0';
        int fd = open(len == 0 ? (slash == NULL ? "." : "/") : dir,
                      O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return false;
        bool synced = fsync(fd) == 0;
        close(fd);
        return synced;
}

/* Fills and syncs an open file; closes it in every case. */
static bool file_fill(int fd, bool (*fill)(FILE *file, const void *what), const void *what)
{
        FILE *file = fdopen(fd, "w");
        if (file == NULL) {
                close(fd);
                return false;
        }
        bool filled = fill(file, what) && fflush(file) == 0 && fsync(fd) == 0;
        int number = errno;
        bool closed = fclose(file) == 0;
        if (!filled)
                errno = number;
        return filled && closed;
}

enum err pki_file_write(const char *path, unsigned mode, bool (*fill)(FILE *file, const void *what),
                        const void *what, struct pki_error *error)
{
        char aside[PKI_PATH_MAX];
        if (snprintf(aside, sizeof aside, "%s.new", path) >= (int)sizeof aside)
                return pki_fail(error, ERR_INVALID, "%s: the name is too long", path);
        unlink(aside);
        int fd = open(aside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, (mode_t)mode);
        if (fd < 0)
                return pki_fail(error, ERR_IO, "cannot create %s: %s", aside,
                                strerrordesc_np(errno));
        if (!file_fill(fd, fill, what) || rename(aside, path) != 0 || !dir_sync(path)) {
                int number = errno;
                unlink(aside);
                return pki_fail(error, number == ENOSPC ? ERR_NOSPACE : ERR_IO,
                                "cannot write %s: %s", path, strerrordesc_np(number));
        }
        return ERR_NONE;
}

enum err pki_file_append(const char *path, const char *line, struct pki_error *error)
{
        int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (fd < 0)
                return pki_fail(error, ERR_IO, "cannot open %s: %s", path, strerrordesc_np(errno));
        size_t len = strlen(line);
        bool written = write(fd, line, len) == (ssize_t)len && fsync(fd) == 0;
        int number = errno;
        close(fd);
        if (!written)
                return pki_fail(error, ERR_IO, "cannot write %s: %s", path,
                                strerrordesc_np(number));
        return ERR_NONE;
}

enum err pki_certificate_load(const char *path, X509 **ret_certificate, struct pki_error *error)
{
        FILE *file = fopen(path, "re");
        if (file == NULL)
                return pki_fail(error, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO,
                                "cannot read the certificate %s: %s; %s", path,
                                strerrordesc_np(errno),
                                errno == ENOENT ? "make it with `meridian pki` or correct the path"
                                                : "let the user of this program read it");
        X509 *certificate = PEM_read_X509(file, NULL, NULL, NULL);
        fclose(file);
        if (certificate == NULL)
                return pki_fail_ssl(error, ERR_MALFORMED,
                                    "%s holds no certificate in PEM form; issue it again", path);
        *ret_certificate = certificate;
        return ERR_NONE;
}

/* A key without a password: one that has a password is refused, never asked for on a terminal. */
/* NOLINTNEXTLINE(readability-non-const-parameter): the type is OpenSSL's */
static int password_none(char *buffer, int size, int writing, void *user)
{
        (void)buffer;
        (void)size;
        (void)writing;
        (void)user;
        return -1;
}

enum err pki_key_load(const char *path, EVP_PKEY **ret_key, struct pki_error *error)
{
        struct stat info;
        FILE *file = fopen(path, "re");
        if (file == NULL)
                return pki_fail(error, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO,
                                "cannot read the key %s: %s", path, strerrordesc_np(errno));
        if (fstat(fileno(file), &info) != 0 || (info.st_mode & 077) != 0) {
                fclose(file);
                return pki_fail(error, ERR_REFUSED,
                                "the key %s can be read by others: run chmod 600 %s, and issue a "
                                "new one if it was exposed",
                                path, path);
        }
        EVP_PKEY *key = PEM_read_PrivateKey(file, NULL, password_none, NULL);
        fclose(file);
        if (key == NULL)
                return pki_fail_ssl(error, ERR_MALFORMED,
                                    "%s holds no private key in PEM form; issue it again", path);
        *ret_key = key;
        return ERR_NONE;
}

bool pki_certificate_fill(FILE *file, const void *certificate)
{
        return PEM_write_X509(file, certificate) == 1;
}

bool pki_key_fill(FILE *file, const void *key)
{
        return PEM_write_PKCS8PrivateKey(file, key, NULL, NULL, 0, NULL, NULL) == 1;
}
