/* pki_priv.h - what the files of this room share. */
#ifndef MERIDIAN_PKI_PKI_PRIV_H
#define MERIDIAN_PKI_PKI_PRIV_H

#include "pki/pki.h"

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdio.h>

#define PKI_PATH_MAX 2048

/* Fills an error's text; returns `err`, so that a caller can fail in one line. */
MUST_USE enum err pki_fail(struct pki_error *error, enum err err, const char *format, ...)
        PRINTF_LIKE(3, 4);

/* The same with the last reason of OpenSSL's queue behind it; clears the queue. */
MUST_USE enum err pki_fail_ssl(struct pki_error *error, enum err err, const char *format, ...)
        PRINTF_LIKE(3, 4);

/* dir/name; false when it is too long. */
bool pki_path(char path[PKI_PATH_MAX], const char *dir, const char *name);

/* Creates a folder (0700) and what is missing above it. */
MUST_USE enum err pki_dir_make(const char *dir, struct pki_error *error);

/* Writes the file aside with `mode`, by `fill`, syncs and renames. */
MUST_USE enum err pki_file_write(const char *path, unsigned mode,
                                 bool (*fill)(FILE *file, const void *what), const void *what,
                                 struct pki_error *error);

/* Adds one line to a file, created with 0600, and syncs. */
MUST_USE enum err pki_file_append(const char *path, const char *line, struct pki_error *error);

MUST_USE enum err pki_certificate_load(const char *path, X509 **ret_certificate,
                                       struct pki_error *error);

/* Refuses a key that others can read. */
MUST_USE enum err pki_key_load(const char *path, EVP_PKEY **ret_key, struct pki_error *error);

bool pki_certificate_fill(FILE *file, const void *certificate);
bool pki_key_fill(FILE *file, const void *key);

#endif
