/* Certificates: identities in every form, the files and their modes, and each way in which a node's
 * pair can be wrong. */
#include "base/rng.h"
#include "pki/pki.h"

#include <openssl/ssl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
/* cmocka needs the four above. */
#include <cmocka.h>

#define PATH_MAX_TEST 512

static char root[64];
static const struct pki_validity year = {-3600, (int64_t)365 * 86400};

static const char *in_root(const char *name)
{
        static char paths[8][PATH_MAX_TEST];
        static unsigned next;
        char *path = paths[next++ % 8];
        snprintf(path, PATH_MAX_TEST, "%s/%s", root, name);
        return path;
}

static struct pki_identity identity_of(const char *cluster, const char *region, uint32_t node)
{
        struct pki_identity identity;
        assert_int_equal(pki_identity_set(&identity, cluster, region, node), ERR_NONE);
        return identity;
}

static struct pki_files files_of(const char *dir)
{
        static char paths[3][PATH_MAX_TEST];
        snprintf(paths[0], PATH_MAX_TEST, "%s/%s/ca.crt", root, dir);
        snprintf(paths[1], PATH_MAX_TEST, "%s/%s/node.crt", root, dir);
        snprintf(paths[2], PATH_MAX_TEST, "%s/%s/node.key", root, dir);
        return (struct pki_files){paths[0], paths[1], paths[2], NULL};
}

static unsigned mode_of(const char *path)
{
        struct stat info;
        assert_int_equal(stat(path, &info), 0);
        return info.st_mode & 0777;
}

static int setup(void **state)
{
        (void)state;
        struct pki_error error;
        struct pki_identity east = identity_of("lab", "us-east", 1);
        snprintf(root, sizeof root, "/tmp/meridian-pki-XXXXXX");
        if (mkdtemp(root) == NULL)
                return -1;
        return pki_ca_make(in_root("ca"), "lab", year, &error) != ERR_NONE ||
               pki_ca_make(in_root("other"), "lab", year, &error) != ERR_NONE ||
               pki_node_issue(in_root("ca"), in_root("east"), &east, year, &error) != ERR_NONE;
}

static int teardown(void **state)
{
        (void)state;
        char command[128];
        snprintf(command, sizeof command, "rm -rf '%s'", root);
        return system(command); /* NOLINT(cert-env33-c): a fixed command on our own folder */
}

static void test_identity_round_trip(void **state)
{
        (void)state;
        struct pki_identity identity = identity_of("lab", "eu-west", UINT32_MAX);
        struct pki_identity back;
        char uri[PKI_URI_MAX];
        pki_identity_format(&identity, uri);
        assert_string_equal(uri, "meridian://lab/eu-west/4294967295");
        assert_int_equal(pki_identity_parse(bytes_of_str(uri), &back), ERR_NONE);
        assert_true(pki_identity_equal(&identity, &back));
}

static void test_identity_refused(void **state)
{
        (void)state;
        static const char *const bad[] = {
                "",
                "meridian://",
                "meridian://lab",
                "meridian://lab/us-east",
                "meridian://lab/us-east/",
                "meridian://lab/us-east/0",
                "meridian://lab/us-east/01",
                "meridian://lab/us-east/4294967296",
                "meridian://lab/us-east/99999999999999999999",
                "meridian://lab/us-east/-1",
                "meridian://lab/us-east/1/",
                "meridian://lab/us-east/1/2",
                "meridian:///us-east/1",
                "meridian://lab//1",
                "meridian://lab/us east/1",
                "meridian://lab/../1",
                "Meridian://lab/us-east/1",
                "http://lab/us-east/1",
                "meridian://0123456789012345678901234567890123456789012345678901234567890123/r/1",
        };
        struct pki_identity identity;
        for (size_t i = 0; i < COUNT_OF(bad); i++) {
                if (pki_identity_parse(bytes_of_str(bad[i]), &identity) != ERR_MALFORMED)
                        fail_msg("accepted: %s", bad[i]);
        }
        assert_int_equal(pki_identity_parse(bytes_of("meridian://lab/us-east/1\0", 25), &identity),
                         ERR_MALFORMED);
        assert_int_equal(pki_identity_set(&identity, "lab", "us-east", 0), ERR_INVALID);
        assert_int_equal(pki_identity_set(&identity, "la b", "us-east", 1), ERR_INVALID);
}

/* Whatever bytes come, what is accepted formats back to the very same bytes. */
static void test_identity_random(void **state)
{
        (void)state;
        struct rng rng;
        rng_init(&rng, 7401, 0);
        static const char alphabet[] = "a1-_/:.%\0Z09";
        for (unsigned round = 0; round < 20000; round++) {
                char uri[64] = "meridian://lab/us-east/17", again[PKI_URI_MAX];
                size_t len = 25;
                for (unsigned i = 0; i < 3; i++)
                        uri[rng_below(&rng, len)] = alphabet[rng_below(&rng, sizeof alphabet - 1)];
                struct pki_identity identity;
                if (pki_identity_parse(bytes_of(uri, len), &identity) != ERR_NONE)
                        continue;
                pki_identity_format(&identity, again);
                assert_true(bytes_equal(bytes_of(uri, len), bytes_of_str(again)));
        }
}

static void test_files_private(void **state)
{
        (void)state;
        assert_int_equal(mode_of(in_root("ca/ca.key")), 0600);
        assert_int_equal(mode_of(in_root("east/node.key")), 0600);
        assert_int_equal(mode_of(in_root("ca")), 0700);
        assert_int_equal(access(in_root("east/ca.key"), F_OK), -1);
}

static void test_verify(void **state)
{
        (void)state;
        struct pki_files files = files_of("east");
        struct pki_identity east = identity_of("lab", "us-east", 1);
        struct pki_identity west = identity_of("lab", "eu-west", 1);
        struct pki_error error;
        int64_t days;
        assert_int_equal(pki_node_verify(&files, &east, &days, &error), ERR_NONE);
        assert_true(days >= 364 && days <= 365);
        assert_int_equal(pki_node_verify(&files, &west, NULL, &error), ERR_INVALID);
        assert_non_null(strstr(error.text, "meridian://lab/us-east/1"));
        assert_non_null(strstr(error.text, "meridian://lab/eu-west/1"));
}

static void test_authority_is_kept(void **state)
{
        (void)state;
        struct pki_error error;
        assert_int_equal(pki_ca_make(in_root("ca"), "lab", year, &error), ERR_EXISTS);
        assert_int_equal(pki_ca_make(in_root("x"), "l/b", year, &error), ERR_INVALID);
        char cluster[PKI_NAME_MAX + 1];
        assert_int_equal(pki_ca_cluster(in_root("ca"), cluster, &error), ERR_NONE);
        assert_string_equal(cluster, "lab");
        assert_int_equal(pki_ca_cluster(in_root("nowhere"), cluster, &error), ERR_NOT_FOUND);
        struct pki_identity alien = identity_of("other", "us-east", 1);
        assert_int_equal(pki_node_issue(in_root("ca"), in_root("x"), &alien, year, &error),
                         ERR_INVALID);
        struct pki_identity east = identity_of("lab", "us-east", 1);
        assert_int_equal(pki_node_issue(in_root("nowhere"), in_root("x"), &east, year, &error),
                         ERR_NOT_FOUND);
        assert_non_null(strstr(error.text, "nowhere/ca.crt"));
}

static void test_wrong_authority(void **state)
{
        (void)state;
        struct pki_error error;
        struct pki_identity east = identity_of("lab", "us-east", 1);
        assert_int_equal(pki_node_issue(in_root("other"), in_root("stray"), &east, year, &error),
                         ERR_NONE);
        struct pki_files files = files_of("stray");
        files.ca = in_root("ca/ca.crt");
        assert_int_equal(pki_node_verify(&files, &east, NULL, &error), ERR_REFUSED);
        assert_non_null(strstr(error.text, "stray/node.crt"));
}

static void test_time(void **state)
{
        (void)state;
        static const struct {
                struct pki_validity validity;
                enum err err;
                const char *why;
        } rows[] = {
                {{-7200, -3600}, ERR_REFUSED, "expired an hour ago"},
                {{3600, 7200}, ERR_REFUSED, "begins in an hour"},
                {{-3600, 3600}, ERR_NONE, "in the middle"},
                {{-3600, (int64_t)40 * 365 * 86400}, ERR_NONE, "ends after 2050"},
        };
        struct pki_identity node = identity_of("lab", "us-east", 2);
        struct pki_error error;
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                assert_int_equal(pki_node_issue(in_root("ca"), in_root("timed"), &node,
                                                rows[i].validity, &error),
                                 ERR_NONE);
                struct pki_files files = files_of("timed");
                if (pki_node_verify(&files, &node, NULL, &error) != rows[i].err)
                        fail_msg("%s: %s", rows[i].why, error.text);
        }
}

static void test_key_exposed_or_swapped(void **state)
{
        (void)state;
        struct pki_identity node = identity_of("lab", "us-east", 3);
        struct pki_error error;
        assert_int_equal(pki_node_issue(in_root("ca"), in_root("three"), &node, year, &error),
                         ERR_NONE);
        struct pki_files files = files_of("three");
        assert_int_equal(chmod(in_root("three/node.key"), 0640), 0);
        assert_int_equal(pki_node_verify(&files, &node, NULL, &error), ERR_REFUSED);
        assert_non_null(strstr(error.text, "chmod 600"));
        files.key = in_root("east/node.key");
        assert_int_equal(pki_node_verify(&files, &node, NULL, &error), ERR_INVALID);
        files.key = in_root("three/node.crt");
        assert_int_equal(chmod(in_root("three/node.crt"), 0600), 0);
        assert_int_equal(pki_node_verify(&files, &node, NULL, &error), ERR_MALFORMED);
}

/* A certificate cut at any length, or with a bit turned, is an error and never a crash. */
static void test_damaged_certificate(void **state)
{
        (void)state;
        char whole[8192];
        struct pki_error error;
        struct pki_identity east = identity_of("lab", "us-east", 1);
        FILE *file = fopen(in_root("east/node.crt"), "re");
        assert_non_null(file);
        size_t len = fread(whole, 1, sizeof whole, file);
        fclose(file);
        struct pki_files files = files_of("east");
        files.cert = in_root("damaged.crt");
        for (size_t cut = 0; cut < len - 1; cut += 13) {
                file = fopen(files.cert, "we");
                assert_non_null(file);
                whole[cut] = (char)(whole[cut] ^ 1);
                assert_int_equal(fwrite(whole, 1, cut % 2 == 0 ? cut : len, file),
                                 cut % 2 == 0 ? cut : len);
                whole[cut] = (char)(whole[cut] ^ 1);
                fclose(file);
                if (pki_node_verify(&files, &east, NULL, &error) == ERR_NONE)
                        fail_msg("accepted with damage at %zu", cut);
        }
}

static void test_context(void **state)
{
        (void)state;
        struct pki_files files = files_of("east");
        struct pki_identity east = identity_of("lab", "us-east", 1);
        struct pki_error error;
        SSL_CTX *context;
        assert_int_equal(pki_context_new(&files, &east, &context, &error), ERR_NONE);
        assert_int_equal(SSL_CTX_get_min_proto_version(context), TLS1_3_VERSION);
        assert_true(SSL_CTX_get_verify_mode(context) & SSL_VERIFY_FAIL_IF_NO_PEER_CERT);
        SSL_CTX_free(context);
        files.crl = in_root("ca/nothing.crl");
        assert_int_equal(pki_context_new(&files, &east, &context, &error), ERR_NOT_FOUND);
        assert_non_null(strstr(error.text, "nothing.crl"));
        files.crl = in_root("ca/ca.crt");
        assert_int_equal(pki_context_new(&files, &east, &context, &error), ERR_MALFORMED);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_identity_round_trip),
                cmocka_unit_test(test_identity_refused),
                cmocka_unit_test(test_identity_random),
                cmocka_unit_test(test_files_private),
                cmocka_unit_test(test_verify),
                cmocka_unit_test(test_authority_is_kept),
                cmocka_unit_test(test_wrong_authority),
                cmocka_unit_test(test_time),
                cmocka_unit_test(test_key_exposed_or_swapped),
                cmocka_unit_test(test_damaged_certificate),
                cmocka_unit_test(test_context),
        };
        return cmocka_run_group_tests_name("pki", tests, setup, teardown);
}
