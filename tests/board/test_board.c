/* Flags, services and the page: what is understood, what is refused, how users are spread, and that
 * no page, however damaged, is read beyond its end. */
#include "board/board.h"
#include "kv/kv.h"

#include "../cmocka_all.h"
#include "../heap_group.h"
#include "base/rng.h"

#include <stdio.h>
#include <stdlib.h>

static const struct flag_attribute beta[] = {{BYTES_INIT("plan"), BYTES_INIT("beta")},
                                             {BYTES_INIT("mail"), BYTES_INIT("ann@example.test")}};

static struct flag_verdict verdict_of(const char *text, const char *user, const char *region,
                                      bool attributes)
{
        char why[FLAG_WHY_SIZE] = "";
        struct buffer out;
        struct flag_client client = {.user = bytes_of_str(user), .region = bytes_of_str(region)};
        if (attributes) {
                client.attributes = beta;
                client.attribute_count = COUNT_OF(beta);
        }
        buffer_init(&out, &heap);
        if (flag_compile(BYTES("f"), bytes_of_str(text), &out, why) != ERR_NONE)
                fail_msg("%s: %s", text, why);
        assert_true(flag_valid(buffer_view(&out)));
        struct flag_verdict verdict = flag_evaluate(buffer_view(&out), &client);
        buffer_fini(&out);
        return verdict;
}

static void test_rules(void **state)
{
        static const struct {
                const char *text;
                const char *user;
                const char *region;
                bool attributes;
                bool on;
                enum flag_reason reason;
                unsigned rule;
        } rows[] = {
                {"", "ann", "", false, false, FLAG_OTHERWISE, 0},
                {"otherwise on", "ann", "", false, true, FLAG_OTHERWISE, 0},
                {"otherwise off", "ann", "", false, false, FLAG_OTHERWISE, 0},
                {"otherwise 100%", "ann", "", false, true, FLAG_OTHERWISE, 0},
                {"otherwise 0%", "ann", "", false, false, FLAG_OTHERWISE, 0},
                {"otherwise on; killed", "ann", "", false, false, FLAG_KILLED, 0},
                {"when user is ann on", "ann", "", false, true, FLAG_RULE, 1},
                {"when user is ann on", "ben", "", false, false, FLAG_OTHERWISE, 0},
                {"when user is-not ann on", "ben", "", false, true, FLAG_RULE, 1},
                {"when region is eu-west on", "ann", "eu-west", false, true, FLAG_RULE, 1},
                {"when region is eu-west on", "ann", "us-east", false, false, FLAG_OTHERWISE, 0},
                {"when region begins eu- on", "ann", "eu-north", false, true, FLAG_RULE, 1},
                {"when region is eu-west off\notherwise on", "ann", "eu-west", false, false,
                 FLAG_RULE, 1},
                {"when user is ann off; when region is r on", "ann", "r", false, false, FLAG_RULE,
                 1},
                {"when user is ann off; when region is r on", "ben", "r", false, true, FLAG_RULE,
                 2},
                {"when plan is beta on", "ann", "", true, true, FLAG_RULE, 1},
                {"when plan is beta on", "ann", "", false, false, FLAG_OTHERWISE, 0},
                {"when plan is-not beta on", "ann", "", false, true, FLAG_RULE, 1},
                {"when plan is beta and region is r on", "ann", "r", true, true, FLAG_RULE, 1},
                {"when plan is beta and region is r on", "ann", "q", true, false, FLAG_OTHERWISE,
                 0},
                {"when mail begins \"ann@\" on", "", "", true, true, FLAG_RULE, 1},
                {"when user is \"two words\" on", "two words", "", false, true, FLAG_RULE, 1},
                {" ;; \r\n\totherwise   on ;\n", "ann", "", false, true, FLAG_OTHERWISE, 0},
        };
        (void)state;
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                struct flag_verdict verdict =
                        verdict_of(rows[i].text, rows[i].user, rows[i].region, rows[i].attributes);
                if (verdict.on != rows[i].on || verdict.reason != rows[i].reason ||
                    verdict.rule != rows[i].rule)
                        fail_msg("%s: on %d reason %d rule %u", rows[i].text, (int)verdict.on,
                                 (int)verdict.reason, verdict.rule);
        }
}

static void test_refused(void **state)
{
        static const char *const texts[] = {
                "on",
                "otherwise",
                "otherwise 101%",
                "otherwise 100.01%",
                "otherwise 1.234%",
                "otherwise -1%",
                "otherwise %",
                "otherwise .5%",
                "otherwise 50",
                "otherwise on off",
                "otherwise on; otherwise off",
                "kill",
                "killed now",
                "salt",
                "when user ann on",
                "when user is ann",
                "when user is ann maybe",
                "when user was ann on",
                "when user is ann or region is r on",
                "when user is \"ann on",
        };
        char why[FLAG_WHY_SIZE];
        struct buffer out;
        (void)state;
        buffer_init(&out, &heap);
        for (size_t i = 0; i < COUNT_OF(texts); i++) {
                why[0] = '\0';
                if (flag_compile(BYTES("f"), bytes_of_str(texts[i]), &out, why) == ERR_NONE)
                        fail_msg("taken: %s", texts[i]);
                assert_true(why[0] != '\0');
        }
        char *many = calloc(1, 8192);
        assert_non_null(many);
        for (int i = 0; i <= FLAG_RULES_MAX; i++)
                memcpy(many + strlen(many), "when user is ann on\n", 21);
        assert_int_equal(flag_compile(BYTES("f"), bytes_of_str(many), &out, why), ERR_MALFORMED);
        memset(many, ' ', FLAG_TEXT_BYTES_MAX + 1);
        assert_int_equal(
                flag_compile(BYTES("f"), bytes_of(many, FLAG_TEXT_BYTES_MAX + 1), &out, NULL),
                ERR_LIMIT);
        free(many);
        buffer_fini(&out);
}

/* A share takes about that many, who is in stays in when it grows, and flags are independent. */
static void test_shares(void **state)
{
        enum {
                USERS = 20000
        };
        size_t in[3] = {0};
        size_t both = 0;
        (void)state;
        for (int i = 0; i < USERS; i++) {
                char user[24];
                snprintf(user, sizeof user, "user-%d", i);
                struct bytes name = bytes_of_str(user);
                uint32_t bucket = flag_bucket(BYTES("f"), name);
                assert_true(bucket < FLAG_SHARE_ALL);
                in[0] += bucket < 1000;
                in[1] += bucket < 5000;
                in[2] += bucket < 25;
                both += bucket < 5000 && flag_bucket(BYTES("g"), name) < 5000;
        }
        assert_in_range(in[0], USERS / 10 - 200, USERS / 10 + 200);
        assert_in_range(in[1], USERS / 2 - 300, USERS / 2 + 300);
        assert_in_range(in[2], 25, 80);
        assert_in_range(both, USERS / 4 - 300, USERS / 4 + 300);
        /* part of the format: other programs and later versions must say the same */
        assert_int_equal(flag_bucket(BYTES("new-checkout"), BYTES("ann")), 7354);
        assert_true(verdict_of("salt x; otherwise 50%", "ann", "", false).bucket ==
                    flag_bucket(BYTES("x"), BYTES("ann")));
        assert_true(verdict_of("otherwise 2.5%", "ann", "", false).share == 250);
}

static void test_services(void **state)
{
        static const struct {
                const char *key;
                const char *text;
                bool good;
        } rows[] = {
                {"pay/a", "127.0.0.1:80", true},
                {"pay/a", "127.0.0.1:80 region eu-west weight 7", true},
                {"pay/a", "[::1]:80 weight 0", true},
                {"pay/a", "::1:80", false},
                {"pay/a", "127.0.0.1", false},
                {"pay/a", "127.0.0.1:0", false},
                {"pay/a", "127.0.0.1:65536", false},
                {"pay/a", "127.0.0.1:80 weight", false},
                {"pay/a", "127.0.0.1:80 zone x", false},
                {"pay/a", "", false},
                {"pay", "127.0.0.1:80", false},
                {"pay/", "127.0.0.1:80", false},
                {"/a", "127.0.0.1:80", false},
                {"pay/a/b", "127.0.0.1:80", false},
                {"Pay/a", "127.0.0.1:80", false},
                {"-pay/a", "127.0.0.1:80", false},
        };
        struct board_service service;
        (void)state;
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                bool good = board_service_parse(bytes_of_str(rows[i].key),
                                                bytes_of_str(rows[i].text), &service) == ERR_NONE;
                if (good != rows[i].good)
                        fail_msg("%s %s", rows[i].key, rows[i].text);
        }
        assert_int_equal(board_service_parse(BYTES("pay/a"),
                                             BYTES("10.0.0.7:8080 region eu-west weight 7"),
                                             &service),
                         ERR_NONE);
        assert_int_equal(service.port, 8080);
        assert_int_equal(service.weight, 7);
        assert_int_equal(service.address[3], 7);
        assert_true(bytes_equal(service.region, BYTES("eu-west")));
}

static void kv_put(struct kv *kv, const char *key, const char *value)
{
        struct kv_build build;
        struct buffer txn;
        bool fatal = false;
        static uint64_t index;
        struct kv_call call = {.index = ++index};
        struct kv_step step = {
                .op = KV_PUT, .key = bytes_of_str(key), .value = bytes_of_str(value)};
        buffer_init(&txn, &heap);
        kv_build_init(&build, &heap);
        kv_build_step(&build, false, &step);
        assert_int_equal(kv_build_end(&build, &txn), ERR_NONE);
        assert_int_equal(kv_apply(kv, &call, buffer_view(&txn), &fatal)->kind, KV_DONE);
        kv_build_fini(&build);
        buffer_fini(&txn);
}

static struct bytes page_make(struct buffer *out, bool *ret_cut, char refused[FLAG_WHY_SIZE],
                              size_t config_count)
{
        struct kv *kv = NULL;
        assert_int_equal(kv_new(&heap, 1, &kv), ERR_NONE);
        kv_put(kv, "global:flag/b", "otherwise on");
        kv_put(kv, "global:flag/a", "otherwise 50%; when region is r on");
        kv_put(kv, "global:flag/bad", "otherwise maybe");
        kv_put(kv, "global:service/pay/2", "127.0.0.2:81");
        kv_put(kv, "global:service/pay/1", "127.0.0.1:80 region r");
        kv_put(kv, "global:service/payment/1", "127.0.0.3:80");
        kv_put(kv, "global:other", "no");
        for (size_t i = 0; i < config_count; i++) {
                char key[64];
                snprintf(key, sizeof key, "global:config/k%04zu", i);
                kv_put(kv, key, "a value of some length, so that the page is full at some time");
        }
        buffer_reset(out);
        assert_int_equal(board_collect(kv, &heap, out, ret_cut, refused), ERR_NONE);
        kv_free(kv);
        return buffer_view(out);
}

/* A page and what is known of it. */
struct made {
        struct buffer out;
        struct bytes page;
        struct board board;
        char refused[FLAG_WHY_SIZE];
        bool cut;
};

static void made_init(struct made *made, size_t config_count)
{
        buffer_init(&made->out, &heap);
        made->page = page_make(&made->out, &made->cut, made->refused, config_count);
        assert_int_equal(board_open(made->page, &made->board), ERR_NONE);
        assert_int_equal(made->board.lists[BOARD_FLAGS].count, 2);
}

static void test_page(void **state)
{
        struct made made = {.cut = true};
        struct bytes value;
        struct board_service service;
        (void)state;
        made_init(&made, 10);
        struct board board = made.board;
        assert_false(made.cut);
        assert_non_null(strstr(made.refused, "global:flag/bad"));
        assert_true(board_find(&board, BOARD_FLAGS, BYTES("b"), &value));
        struct flag_client client = {0};
        assert_true(flag_evaluate(value, &client).on);
        assert_false(board_find(&board, BOARD_FLAGS, BYTES("bad"), &value));
        assert_false(board_find(&board, BOARD_FLAGS, BYTES(""), &value));
        assert_true(board_find(&board, BOARD_CONFIG, BYTES("k0009"), &value));
        assert_false(board_find(&board, BOARD_CONFIG, BYTES("k0010"), &value));
        uint32_t first = board_service_first(&board, BYTES("pay"));
        assert_true(board_service_at(&board, first, &service));
        assert_true(bytes_equal(service.id, BYTES("1")) && service.port == 80);
        assert_true(board_service_at(&board, first + 1, &service));
        assert_true(bytes_equal(service.name, BYTES("pay")) && service.port == 81);
        assert_true(board_service_at(&board, first + 2, &service));
        assert_true(bytes_equal(service.name, BYTES("payment")));
        assert_false(board_service_at(&board, first + 3, &service));
        buffer_fini(&made.out);
}

static void test_page_full(void **state)
{
        struct made made = {.cut = false};
        (void)state;
        made_init(&made, 2500);
        assert_true(made.cut && made.board.cut);
        assert_true(made.page.len <= BOARD_BYTES_MAX);
        assert_true(made.board.lists[BOARD_CONFIG].count > 1000);
        buffer_fini(&made.out);
}

static void look_at_all(struct bytes page)
{
        struct board board;
        struct bytes name;
        struct bytes value;
        struct board_service service;
        struct flag_client client = {.user = BYTES("u")};
        if (board_open(page, &board) != ERR_NONE)
                return;
        for (uint32_t i = 0; board_at(&board, BOARD_FLAGS, i, &name, &value); i++)
                (void)flag_evaluate(value, &client);
        for (uint32_t i = 0; board_at(&board, BOARD_CONFIG, i, &name, &value); i++)
                assert_true(board_find(&board, BOARD_CONFIG, name, &value));
        for (uint32_t i = 0; board_service_at(&board, i, &service); i++)
                continue;
}

static void test_page_damaged(void **state)
{
        struct made made = {.cut = false};
        (void)state;
        made_init(&made, 3);
        for (size_t len = 0; len < made.page.len; len++) {
                struct bytes copy;
                assert_true(heap_copy(&heap, bytes_of(made.page.ptr, len), &copy));
                assert_int_not_equal(board_open(copy, &made.board), ERR_NONE);
                heap_free_bytes(&heap, copy);
        }
        for (size_t bit = 0; bit < made.out.len * 8; bit++) {
                made.out.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
                look_at_all(buffer_view(&made.out));
                made.out.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        buffer_fini(&made.out);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_rules),        cmocka_unit_test(test_refused),
                cmocka_unit_test(test_shares),       cmocka_unit_test(test_services),
                cmocka_unit_test(test_page),         cmocka_unit_test(test_page_full),
                cmocka_unit_test(test_page_damaged),
        };
        return cmocka_run_group_tests(tests, heap_group_setup, heap_group_teardown);
}
