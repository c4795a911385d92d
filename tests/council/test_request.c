/* Requests and replies: round trips of every kind, every truncation, every bit flip, the limits. */
#include "council/request.h"

#include "../cmocka_all.h"
#include "../heap_group.h"

#include <ctype.h>

static struct request request_example(enum request_kind kind)
{
        struct request request = {.kind = kind};
        switch (kind) {
        case REQUEST_LOCK_ACQUIRE:
        case REQUEST_LOCK_RENEW:
        case REQUEST_LOCK_RELEASE:
        case REQUEST_LOCK_INFO:
        case REQUEST_LOCK_BREAK:
                request.lock.key = BYTES("global:k");
                request.lock.owner = BYTES("me");
                request.lock.token = 300;
                request.lock.ttl_ms = 5000;
                request.lock.wait_ms = 200;
                request.lock.actor = BYTES("operator");
                break;
        case REQUEST_LOCK_LOOK:
        case REQUEST_LOCK_SEIZE:
        case REQUEST_SESSION_OPEN:
        case REQUEST_SESSION_KEEP:
        case REQUEST_SESSION_CLOSE:
                request.lock.key = BYTES("global:k");
                request.lock.owner = BYTES("me");
                request.lock.ttl_ms = 5000;
                request.lock.slots = UINT32_MAX;
                request.lock.flags = 9;
                request.lock.delay_ms = 700;
                request.lock.session = 12345678901;
                break;
        case REQUEST_LOCK_WATCH:
                request.lock.key = BYTES("global:");
                request.lock.token = REQUEST_WATCH_NOW;
                request.lock.wait_ms = 5000;
                request.lock.flags = REQUEST_WATCH_PREFIX;
                break;
        case REQUEST_LOCK_LIST:
                request.list.key = BYTES("global:");
                request.list.after = 12;
                request.list.limit = REQUEST_LIST_MAX;
                break;
        case REQUEST_TOPOLOGY_APPLY:
                request.topology.epoch = 4;
                request.topology.document = BYTES("regions ...");
                request.topology.actor = BYTES("operator");
                break;
        case REQUEST_REGION:
                request.region.region = BYTES("eu-west");
                request.region.action = REQUEST_ISOLATE;
                request.region.actor = BYTES("operator");
                request.region.why = BYTES("maintenance");
                break;
        case REQUEST_POSTGRES:
                request.postgres.wish = REQUEST_FAILOVER_FORCE;
                request.postgres.target = BYTES("eu-west");
                request.postgres.actor = BYTES("operator");
                break;
        case REQUEST_KV:
        case REQUEST_KV_WATCH:
                request.kv.key = BYTES("global:a");
                request.kv.txn = BYTES("opaque here");
                request.kv.actor = BYTES("operator");
                request.kv.after = 12345678901;
                request.kv.wait_ms = 300;
                request.kv.stale = true;
                break;
        case REQUEST_TOPOLOGY_GET:
        case REQUEST_KIND_COUNT:
                break;
        }
        return request;
}

static void test_several_locks(void **state)
{
        struct request request = request_example(REQUEST_LOCK_ACQUIRE);
        struct request back;
        struct buffer out;
        (void)state;
        buffer_init(&out, &heap);
        request.lock.also = BYTES("\1b\1c");
        request_encode(&request, &out);
        assert_int_equal(out.ptr[0], 3);
        assert_int_equal(request_decode(buffer_view(&out), &back), ERR_NONE);
        assert_true(bytes_equal(back.lock.also, request.lock.also));
        for (size_t len = 0; len < out.len; len++)
                assert_int_not_equal(request_decode(bytes_of(out.ptr, len), &back), ERR_NONE);
        buffer_fini(&out);
}

static void test_requests(void **state)
{
        (void)state;
        for (int kind = REQUEST_LOCK_ACQUIRE; kind < REQUEST_KIND_COUNT; kind++) {
                struct request request = request_example((enum request_kind)kind);
                struct request back;
                struct buffer one;
                struct buffer two;
                buffer_init(&one, &heap);
                buffer_init(&two, &heap);
                request_encode(&request, &one);
                assert_int_equal(request_decode(buffer_view(&one), &back), ERR_NONE);
                assert_int_equal(back.kind, kind);
                request_encode(&back, &two);
                assert_true(bytes_equal(buffer_view(&one), buffer_view(&two)));
                for (size_t len = 0; len < one.len; len++)
                        assert_int_not_equal(request_decode(bytes_of(one.ptr, len), &back),
                                             ERR_NONE);
                for (size_t bit = 0; bit < one.len * 8; bit++) {
                        one.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
                        (void)!request_decode(buffer_view(&one), &back);
                        one.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
                }
                buffer_u8(&one, 0);
                assert_int_equal(request_decode(buffer_view(&one), &back), ERR_MALFORMED);
                one.ptr[0] = 4;
                assert_int_equal(request_decode(buffer_view(&one), &back), ERR_VERSION);
                buffer_fini(&one);
                buffer_fini(&two);
        }
}

static enum err request_trip(const struct request *request)
{
        struct request back;
        struct buffer out;
        buffer_init(&out, &heap);
        request_encode(request, &out);
        enum err err = request_decode(buffer_view(&out), &back);
        buffer_fini(&out);
        return err;
}

static void test_request_limits(void **state)
{
        (void)state;
        uint8_t text[REQUEST_TEXT_BYTES_MAX + 1];
        memset(text, 'x', sizeof text);
        struct request request = request_example(REQUEST_LOCK_LIST);
        request.list.limit = 0;
        assert_int_equal(request_trip(&request), ERR_MALFORMED);
        request.list.limit = REQUEST_LIST_MAX + 1;
        assert_int_equal(request_trip(&request), ERR_MALFORMED);
        request.list.limit = 1;
        assert_int_equal(request_trip(&request), ERR_NONE);
        request = request_example(REQUEST_REGION);
        request.region.why = bytes_of(text, REQUEST_TEXT_BYTES_MAX);
        assert_int_equal(request_trip(&request), ERR_NONE);
        request.region.why = bytes_of(text, sizeof text);
        assert_int_equal(request_trip(&request), ERR_MALFORMED);
        request = request_example(REQUEST_REGION);
        request.region.region = (struct bytes){0};
        assert_int_equal(request_trip(&request), ERR_MALFORMED);
        request = request_example(REQUEST_REGION);
        request.region.actor = bytes_of(text, REQUEST_NAME_BYTES_MAX + 1);
        assert_int_equal(request_trip(&request), ERR_MALFORMED);
}

static void reply_damage(struct buffer *out, struct reply_lock *items, size_t size)
{
        struct reply back;
        for (size_t len = 0; len < out->len; len++)
                assert_int_not_equal(reply_decode(bytes_of(out->ptr, len), &back, items, size),
                                     ERR_NONE);
        for (size_t bit = 0; bit < out->len * 8; bit++) {
                out->ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
                (void)!reply_decode(buffer_view(out), &back, items, size);
                out->ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
}

static void test_replies(void **state)
{
        /* version 1, done, succeeded, revision 9, compacted 2, one step: put, nothing told */
        static const uint8_t result[] = {1, 1, 1, 9, 2, 1, 2, 0, 0, 0};
        struct bytes result_bytes = bytes_of(result, sizeof result);
        /* id 3, granted, key k, owner o, token 7 */
        static const uint8_t changes[] = {3, 1, 1, 'k', 1, 'o', 7};
        (void)state;
        struct reply_lock listed[3] = {
                {BYTES("global:a"), BYTES("o1"), 7, 100, 0},
                {BYTES("global:b"), BYTES("o2"), 8, 200, 1},
                {BYTES("global:c"), BYTES("o3"), 9, 300, 2},
        };
        struct reply_lock items[3];
        for (int kind = REQUEST_LOCK_ACQUIRE; kind < REQUEST_KIND_COUNT; kind++) {
                for (int code = REPLY_OK; code < REPLY_CODE_COUNT; code++) {
                        struct reply reply = {.kind = (enum request_kind)kind,
                                              .code = (enum reply_code)code,
                                              .text = BYTES("a sentence")};
                        if (kind == REQUEST_LOCK_LIST) {
                                reply.list.items = listed;
                                reply.list.count = COUNT_OF(listed);
                                reply.list.next = 9;
                        } else if (kind >= REQUEST_TOPOLOGY_GET && kind <= REQUEST_POSTGRES) {
                                reply.topology.epoch = 5;
                                if (kind != REQUEST_REGION)
                                        reply.topology.document = BYTES("doc");
                        } else if (kind == REQUEST_KV || kind == REQUEST_KV_WATCH) {
                                reply.kv.result = result_bytes;
                        } else if (kind == REQUEST_LOCK_WATCH) {
                                reply.watch.changes = bytes_of(changes, sizeof changes);
                                reply.watch.revision = 300;
                                reply.watch.more = true;
                                reply.watch.copy = code % 2 == 0;
                                reply.watch.known = 301;
                                reply.watch.age_ms = 77;
                        } else {
                                reply.lock = listed[1];
                        }
                        struct reply back;
                        struct buffer one;
                        struct buffer two;
                        buffer_init(&one, &heap);
                        buffer_init(&two, &heap);
                        reply_encode(&reply, &one);
                        assert_int_equal(
                                reply_decode(buffer_view(&one), &back, items, COUNT_OF(items)),
                                ERR_NONE);
                        assert_int_equal(back.kind, kind);
                        assert_int_equal(back.code, code);
                        reply_encode(&back, &two);
                        assert_true(bytes_equal(buffer_view(&one), buffer_view(&two)));
                        if (kind == REQUEST_LOCK_ACQUIRE && code == REPLY_HELD)
                                assert_true(bytes_equal(back.lock.owner, BYTES("o2")));
                        reply_damage(&one, items, COUNT_OF(items));
                        if (kind == REQUEST_LOCK_LIST && code == REPLY_OK) {
                                assert_int_equal(back.list.count, 3);
                                assert_int_equal(reply_decode(buffer_view(&one), &back, items, 2),
                                                 ERR_MALFORMED);
                                assert_int_equal(reply_decode(buffer_view(&one), &back, NULL, 0),
                                                 ERR_MALFORMED);
                        }
                        buffer_fini(&one);
                        buffer_fini(&two);
                }
        }
}

static void test_codes(void **state)
{
        (void)state;
        for (int code = REPLY_OK; code < REPLY_CODE_COUNT; code++) {
                const char *word = reply_code_word((enum reply_code)code);
                assert_true(word[0] != '\0');
                for (const char *c = word; *c != '\0'; c++)
                        assert_true(isupper((unsigned char)*c));
                assert_true(reply_code_http((enum reply_code)code) >= 200);
                for (int other = 0; other < code; other++)
                        assert_string_not_equal(word, reply_code_word((enum reply_code)other));
        }
        assert_string_equal(reply_code_word(REPLY_NO_MAJORITY), "NOMAJORITY");
        assert_string_equal(reply_code_word(REPLY_CODE_COUNT), "INTERNAL");
        assert_int_equal(reply_code_http(REPLY_CODE_COUNT), 500);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_requests),       cmocka_unit_test(test_several_locks),
                cmocka_unit_test(test_request_limits), cmocka_unit_test(test_replies),
                cmocka_unit_test(test_codes),
        };
        return cmocka_run_group_tests(tests, heap_group_setup, heap_group_teardown);
}
