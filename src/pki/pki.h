/* pki.h - the cluster's certificates: one authority, one certificate for each node, and the checks
 * that the link and the tools share.
 *
 * A certificate says who a node is in one subject alternative name, a URI:
 *
 *         meridian://<cluster>/<region>/<node-id>          meridian://lab/us-east/1
 *
 * Nothing else in it is trusted: not the common name, not the address. Keys are ECDSA P-256.
 *
 * A folder of the authority holds ca.crt, ca.key (0600) and ca.issued, one line a certificate
 * (serial, identity, end of validity). A node's folder holds node.crt, node.key (0600) and a copy
 * of ca.crt. Every file is written aside, synced and renamed, so a reader never sees half of one. A
 * revocation list is a file in PEM; one that is named has to be there.
 *
 * Every function that fails fills a pki_error: which file, what is wrong and what to do. */
#ifndef MERIDIAN_PKI_PKI_H
#define MERIDIAN_PKI_PKI_H

#include "base/bytes.h"
#include "base/err.h"

#include <stdint.h>

#define PKI_NAME_MAX  63  /* letters, digits, '-' and '_' in a cluster's or region's name */
#define PKI_URI_MAX   192 /* a whole identity with its NUL */
#define PKI_DAYS_CA   3650
#define PKI_DAYS_NODE 825

struct x509_st;
struct ssl_ctx_st;

struct pki_error {
        char text[640];
};

/* Who a node is. Names are NUL-terminated. */
struct pki_identity {
        char cluster[PKI_NAME_MAX + 1];
        char region[PKI_NAME_MAX + 1];
        uint32_t node; /* > 0 */
};

/* From when to when, in seconds relative to now: {-3600, days * 86400} is usual, so that a clock a
 * little behind accepts a fresh certificate. Tests make expired ones by a negative end. */
struct pki_validity {
        int64_t from_s;
        int64_t until_s;
};

/* The files of a node, for pki_context_new. `crl` may be NULL. */
struct pki_files {
        const char *ca;
        const char *cert;
        const char *key;
        const char *crl;
};

/* True for 1 to PKI_NAME_MAX of [A-Za-z0-9_-]. */
bool pki_name_valid(const char *name);

/* Fills a struct from its parts; ERR_INVALID when a name is not valid or node is 0. */
MUST_USE enum err pki_identity_set(struct pki_identity *identity, const char *cluster,
                                   const char *region, uint32_t node);

/* The URI of an identity, NUL-terminated, and back. ERR_MALFORMED for
 * anything but the exact form. */
void pki_identity_format(const struct pki_identity *identity, char uri[PKI_URI_MAX]);
MUST_USE enum err pki_identity_parse(struct bytes uri, struct pki_identity *ret_identity);
bool pki_identity_equal(const struct pki_identity *a, const struct pki_identity *b);

/* Makes an authority in `dir` (created with mode 0700 where missing). ERR_EXISTS when there is one:
 * it is never overwritten. */
MUST_USE enum err pki_ca_make(const char *dir, const char *cluster, struct pki_validity validity,
                              struct pki_error *error);

/* The cluster that the authority in `dir` is of. ERR_NOT_FOUND when there is none, ERR_MALFORMED
 * when its certificate names no cluster. */
MUST_USE enum err pki_ca_cluster(const char *dir, char ret_cluster[PKI_NAME_MAX + 1],
                                 struct pki_error *error);

/* Issues a new key and certificate into `node_dir` (created where missing), signed by the authority
 * in `ca_dir`; an older pair there is replaced. ERR_NOT_FOUND when there is no authority,
 * ERR_INVALID when the identity is of another cluster than the authority's. */
MUST_USE enum err pki_node_issue(const char *ca_dir, const char *node_dir,
                                 const struct pki_identity *identity, struct pki_validity validity,
                                 struct pki_error *error);

/* Checks what a node would load: every file is there, the key is private (no access by others) and
 * belongs to the certificate, the certificate is of this authority, valid now, and says `expected`
 * (may be NULL: any). ret_days_left (may be NULL): whole days until it ends. */
MUST_USE enum err pki_node_verify(const struct pki_files *files,
                                  const struct pki_identity *expected, int64_t *ret_days_left,
                                  struct pki_error *error);

/* The identity in a certificate: exactly one meridian URI, else ERR_MALFORMED. */
MUST_USE enum err pki_certificate_identity(const struct x509_st *certificate,
                                           struct pki_identity *ret_identity);

/* A TLS context for both directions: TLS 1.3 only, peer certificate required and checked against
 * the authority (and the revocation list), no tickets, ALPN "h2". The caller frees it with
 * SSL_CTX_free. Fails like pki_node_verify. */
MUST_USE enum err pki_context_new(const struct pki_files *files,
                                  const struct pki_identity *expected,
                                  struct ssl_ctx_st **ret_context, struct pki_error *error);

#endif
