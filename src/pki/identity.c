/* Identities: their form as a URI, and how a certificate carries one. Anything but the exact form
 * is refused, since what is not understood must not be trusted. */
#include "base/check.h"
#include "base/cursor.h"
#include "base/digits.h"
#include "pki/pki_priv.h"

#include <openssl/x509v3.h>

static const struct bytes uri_scheme = BYTES_INIT("meridian://");

static bool name_byte(uint8_t c)
{
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '-' || c == '_';
}

static bool name_valid(struct bytes name)
{
        if (name.len == 0 || name.len > PKI_NAME_MAX)
                return false;
        for (size_t i = 0; i < name.len; i++) {
                if (!name_byte(name.ptr[i]))
                        return false;
        }
        return true;
}

bool pki_name_valid(const char *name)
{
        return name_valid(bytes_of_str(name));
}

static void name_copy(char ret_name[PKI_NAME_MAX + 1], struct bytes name)
{
        CHECK(name.len <= PKI_NAME_MAX);
        memcpy(ret_name, name.ptr, name.len);
        ret_name[name.len] = '\0';
}

enum err pki_identity_set(struct pki_identity *identity, const char *cluster, const char *region,
                          uint32_t node)
{
        if (!pki_name_valid(cluster) || !pki_name_valid(region) || node == 0)
                return ERR_INVALID;
        memset(identity, 0, sizeof *identity);
        name_copy(identity->cluster, bytes_of_str(cluster));
        name_copy(identity->region, bytes_of_str(region));
        identity->node = node;
        return ERR_NONE;
}

void pki_identity_format(const struct pki_identity *identity, char uri[PKI_URI_MAX])
{
        int len = snprintf(uri, PKI_URI_MAX, "%s%s/%s/%u", (const char *)uri_scheme.ptr,
                           identity->cluster, identity->region, identity->node);
        CHECK(len > 0 && len < PKI_URI_MAX);
}

/* Takes what stands before the next '/' (or the end) and moves behind it. */
static struct bytes segment_take(struct bytes *rest)
{
        size_t len = 0;
        while (len < rest->len && rest->ptr[len] != '/')
                len++;
        struct bytes segment = bytes_of(rest->ptr, len);
        size_t used = len < rest->len ? len + 1 : len;
        *rest = bytes_of(rest->ptr + used, rest->len - used);
        return segment;
}

/* A decimal number without sign or leading zero; 0 where it is none. */
static uint32_t number_parse(struct bytes digits)
{
        uint64_t value = 0;
        if (digits.len == 0 || digits.ptr[0] == '0')
                return 0;
        return digits_parse(digits, UINT32_MAX, &value) ? (uint32_t)value : 0;
}

enum err pki_identity_parse(struct bytes uri, struct pki_identity *ret_identity)
{
        if (uri.len >= PKI_URI_MAX || !bytes_starts_with(uri, uri_scheme))
                return ERR_MALFORMED;
        struct bytes rest = bytes_of(uri.ptr + uri_scheme.len, uri.len - uri_scheme.len);
        struct bytes cluster = segment_take(&rest);
        struct bytes region = segment_take(&rest);
        uint32_t node = number_parse(rest);
        if (!name_valid(cluster) || !name_valid(region) || node == 0)
                return ERR_MALFORMED;
        memset(ret_identity, 0, sizeof *ret_identity);
        name_copy(ret_identity->cluster, cluster);
        name_copy(ret_identity->region, region);
        ret_identity->node = node;
        return ERR_NONE;
}

bool pki_identity_equal(const struct pki_identity *a, const struct pki_identity *b)
{
        return a->node == b->node && strcmp(a->cluster, b->cluster) == 0 &&
               strcmp(a->region, b->region) == 0;
}

/* The slice of a URI name that has our scheme; empty for any other name. */
static struct bytes meridian_uri(const GENERAL_NAME *name)
{
        int type;
        const ASN1_STRING *value = GENERAL_NAME_get0_value(name, &type);
        if (type != GEN_URI)
                return bytes_of(NULL, 0);
        int len = ASN1_STRING_length(value);
        struct bytes uri = bytes_of(ASN1_STRING_get0_data(value), len > 0 ? (size_t)len : 0);
        return bytes_starts_with(uri, uri_scheme) ? uri : bytes_of(NULL, 0);
}

static enum err names_identity(const GENERAL_NAMES *names, struct pki_identity *ret_identity)
{
        struct bytes found = bytes_of(NULL, 0);
        for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
                struct bytes uri = meridian_uri(sk_GENERAL_NAME_value(names, i));
                if (uri.len > 0 && found.len > 0)
                        return ERR_MALFORMED;
                if (uri.len > 0)
                        found = uri;
        }
        return pki_identity_parse(found, ret_identity);
}

enum err pki_certificate_identity(const struct x509_st *certificate,
                                  struct pki_identity *ret_identity)
{
        /* Critical or not, the extension may stand only once: a second one gives NULL. */
        GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
        if (names == NULL)
                return ERR_MALFORMED;
        enum err err = names_identity(names, ret_identity);
        GENERAL_NAMES_free(names);
        return err;
}
