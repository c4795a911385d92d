/* The forms of what servers answer: module replies, DNS answers, HTTP status lines; good ones,
 * other ones and damaged ones. */
#include "engine/engine_priv.h"

#include "../cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>

/* A reply parsed from the wire by hiredis itself; free with freeReplyObject. */
static redisReply *reply_of(const char *wire, size_t len)
{
        void *reply = NULL;
        redisReader *reader = redisReaderCreate();
        assert_non_null(reader);
        assert_int_equal(redisReaderFeed(reader, wire, len), REDIS_OK);
        if (redisReaderGetReply(reader, &reply) != REDIS_OK)
                reply = NULL;
        redisReaderFree(reader);
        return reply;
}

#define WIRE(text) reply_of(text, sizeof(text) - 1)

static void test_positions(void **state)
{
        (void)state;
        static const struct {
                const char *wire;
                enum reply_kind kind;
        } rows[] = {
                {"*7\r\n:2\r\n:7\r\n:5\r\n:0\r\n:9\r\n*2\r\n*2\r\n:1\r\n:11\r\n*2\r\n:2\r\n:9\r\n$"
                 "0\r\n\r\n",
                 REPLY_GOOD},
                {"*7\r\n:2\r\n:7\r\n:5\r\n:0\r\n:9\r\n*0\r\n$0\r\n\r\n", REPLY_GOOD},
                {"-ERR unknown command 'MERIDIAN.POSITIONS'\r\n", REPLY_REFUSED},
                {"*5\r\n:2\r\n:7\r\n:5\r\n:0\r\n:9\r\n", REPLY_STRANGE},
                {"*7\r\n:2\r\n:7\r\n:5\r\n:0\r\n:9\r\n:1\r\n$0\r\n\r\n", REPLY_STRANGE},
                {"*7\r\n:2\r\n:-7\r\n:5\r\n:0\r\n:9\r\n*0\r\n$0\r\n\r\n", REPLY_STRANGE},
                {"*7\r\n:300\r\n:7\r\n:5\r\n:0\r\n:9\r\n*0\r\n$0\r\n\r\n", REPLY_STRANGE},
                {"*7\r\n:2\r\n:7\r\n:5\r\n$1\r\nx\r\n:9\r\n*0\r\n$0\r\n\r\n", REPLY_STRANGE},
                {"*7\r\n:2\r\n:7\r\n:5\r\n:0\r\n:9\r\n*1\r\n*2\r\n:65\r\n:1\r\n$0\r\n\r\n",
                 REPLY_STRANGE},
                {"*7\r\n:2\r\n:7\r\n:5\r\n:0\r\n:9\r\n*1\r\n*2\r\n:0\r\n:1\r\n$0\r\n\r\n",
                 REPLY_STRANGE},
                {"*7\r\n:2\r\n:7\r\n:5\r\n:0\r\n:9\r\n*1\r\n*1\r\n:1\r\n$0\r\n\r\n", REPLY_STRANGE},
                {"+OK\r\n", REPLY_STRANGE},
                {"$-1\r\n", REPLY_STRANGE},
                {"*6\r\n:2\r\n:7\r\n:5\r\n:0\r\n:9\r\n*0\r\n", REPLY_STRANGE},
                {"*7\r\n:2\r\n:7\r\n:5\r\n:0\r\n:9\r\n*0\r\n:1\r\n", REPLY_STRANGE},
                {"*7\r\n:2\r\n:7\r\n:5\r\n:0\r\n:9\r\n*0\r\n$1\r\nx\r\n", REPLY_STRANGE},
        };
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                struct world_event event;
                struct positions positions;
                region_id origin = 0;
                redisReply *reply = reply_of(rows[i].wire, strlen(rows[i].wire));
                assert_non_null(reply);
                assert_int_equal(reply_positions(reply, &origin, &event, &positions), rows[i].kind);
                if (i == 0) {
                        assert_int_equal(origin, 2);
                        assert_int_equal(event.redis_up.incarnation, 7);
                        assert_int_equal(event.redis_up.recovered, 5);
                        assert_int_equal(event.redis_up.count, 2);
                        assert_int_equal(event.redis_up.positions[0].hlc, 11);
                }
                freeReplyObject(reply);
        }
}

static void test_tail(void **state)
{
        (void)state;
        struct world_event event;
        redisReply *reply = WIRE("*3\r\n:9\r\n:1\r\n$3\r\na\0b\r\n");
        assert_int_equal(reply_tail(reply, &event), REPLY_GOOD);
        assert_int_equal(event.tailed.last, 9);
        assert_true(bytes_equal(event.tailed.deltas, bytes_of("a\0b", 3)));
        freeReplyObject(reply);
        reply = WIRE("-GAP 17\r\n");
        assert_int_equal(reply_tail(reply, &event), REPLY_GAP);
        assert_true(event.tailed.gap);
        assert_int_equal(event.tailed.last, 17);
        freeReplyObject(reply);
        reply = WIRE("-LOADING wait\r\n");
        assert_int_equal(reply_tail(reply, &event), REPLY_REFUSED);
        freeReplyObject(reply);
        reply = WIRE("*3\r\n:9\r\n:1\r\n:3\r\n");
        assert_int_equal(reply_tail(reply, &event), REPLY_STRANGE);
        freeReplyObject(reply);
        reply = WIRE("*0\r\n");
        assert_int_equal(reply_tail(reply, &event), REPLY_STRANGE);
        freeReplyObject(reply);
}

static void test_merge(void **state)
{
        (void)state;
        static const struct {
                const char *wire;
                bool gap;
                uint64_t position;
                enum err err;
        } rows[] = {
                {":12\r\n", false, 12, ERR_NONE},
                {"*3\r\n:12\r\n$0\r\n\r\n*0\r\n", false, 12, ERR_NONE},
                {"*3\r\n:12\r\n$0\r\n\r\n*1\r\n*2\r\n:3\r\n:4\r\n", false, 12, ERR_NONE},
                {"*2\r\n:12\r\n$1\r\nx\r\n", false, 0, ERR_MALFORMED},
                {"*3\r\n:12\r\n$0\r\n\r\n:3\r\n", false, 0, ERR_MALFORMED},
                {"+OK\r\n", false, 0, ERR_NONE},
                {"-GAP 3\r\n", true, 3, ERR_NONE},
                {"-GAP\r\n", true, 0, ERR_NONE},
                {"-GAP x\r\n", true, 0, ERR_NONE},
                {"-OOM command not allowed\r\n", false, 0, ERR_LIMIT},
                {"-LOADING Redis is loading\r\n", false, 0, ERR_BUSY},
                {"-DRIFT a clock\r\n", false, 0, ERR_REFUSED},
                {"-MERIDIAN the input is malformed\r\n", false, 0, ERR_INVALID},
                {"*0\r\n", false, 0, ERR_MALFORMED},
                {":-1\r\n", false, 0, ERR_MALFORMED},
        };
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                struct world_event event;
                redisReply *reply = reply_of(rows[i].wire, strlen(rows[i].wire));
                struct positions merged;
                (void)reply_merge(reply, &event, &merged);
                assert_int_equal(event.merged.gap, rows[i].gap);
                assert_int_equal(event.merged.position, rows[i].position);
                assert_int_equal(event.merged.err, rows[i].err);
                freeReplyObject(reply);
        }
}

static void test_scan(void **state)
{
        (void)state;
        struct world_event event;
        struct positions positions;
        redisReply *reply = WIRE("*3\r\n$20\r\n18446744073709551615\r\n*1\r\n*2\r\n:3\r\n:4\r\n"
                                 "$2\r\nxy\r\n");
        assert_int_equal(reply_scan(reply, &event, &positions), REPLY_GOOD);
        assert_true(event.scanned.cursor == UINT64_MAX);
        assert_int_equal(event.scanned.position_count, 1);
        assert_int_equal(event.scanned.err, ERR_NONE);
        freeReplyObject(reply);
        static const char *const strange[] = {
                "*3\r\n$21\r\n184467440737095516150\r\n*0\r\n$0\r\n\r\n",
                "*3\r\n$2\r\n1x\r\n*0\r\n$0\r\n\r\n",
                "*3\r\n$0\r\n\r\n*0\r\n$0\r\n\r\n",
                "*3\r\n*0\r\n*0\r\n*0\r\n",
                "+OK\r\n",
        };
        for (size_t i = 0; i < COUNT_OF(strange); i++) {
                reply = reply_of(strange[i], strlen(strange[i]));
                assert_int_equal(reply_scan(reply, &event, &positions), REPLY_STRANGE);
                assert_int_equal(event.scanned.err, ERR_MALFORMED);
                freeReplyObject(reply);
        }
}

/* Bytes of a good reply changed at random: whatever hiredis makes of them, the form is checked. */
static void test_damaged_replies(void **state)
{
        (void)state;
        static const char good[] = "*7\r\n:2\r\n:7\r\n:5\r\n:0\r\n:9\r\n*2\r\n*2\r\n:1\r\n:11\r\n"
                                   "*2\r\n:2\r\n:9\r\n$0\r\n\r\n";
        struct rng rng;
        rng_init(&rng, 5, 1);
        for (int round = 0; round < 20000; round++) {
                char wire[sizeof good];
                struct world_event event;
                struct positions positions;
                region_id origin = 0;
                memcpy(wire, good, sizeof good);
                for (uint64_t n = rng_between(&rng, 1, 3); n > 0; n--)
                        wire[rng_below(&rng, sizeof good - 1)] =
                                "*:$+-0123456789\r\nx"[rng_below(&rng, 18)];
                redisReply *reply = reply_of(wire, sizeof good - 1);
                if (reply == NULL)
                        continue;
                (void)reply_positions(reply, &origin, &event, &positions);
                (void)reply_tail(reply, &event);
                struct positions merged;
                (void)reply_merge(reply, &event, &merged);
                (void)reply_scan(reply, &event, &positions);
                freeReplyObject(reply);
        }
}

static void test_dns(void **state)
{
        (void)state;
        uint8_t query[DNS_QUERY_MAX], answer[DNS_QUERY_MAX];
        bool ours = false;
        size_t len = dns_query(0x1234, BYTES("example.test"), query);
        static const uint8_t expected[] = "\x12\x34\0\0\0\1\0\0\0\0\0\0\7example\4test\0\0\6\0\1";
        assert_int_equal(len, sizeof expected - 1);
        assert_memory_equal(query, expected, len);
        memcpy(answer, query, len);
        struct bytes asked = bytes_of(query, len);
        assert_non_null(dns_answer_fault(bytes_of(answer, len), asked, &ours));
        assert_false(ours); /* our own query, echoed */
        answer[2] |= 0x80;
        answer[7] = 1;
        assert_null(dns_answer_fault(bytes_of(answer, len), asked, &ours));
        assert_true(ours);
        answer[1] ^= 1;
        assert_non_null(dns_answer_fault(bytes_of(answer, len), asked, &ours));
        assert_false(ours);
        answer[1] ^= 1;
        for (uint8_t code = 1; code < 16; code++) {
                answer[3] = code;
                assert_non_null(dns_answer_fault(bytes_of(answer, len), asked, &ours));
                assert_true(ours);
        }
        answer[3] = 0;
        answer[7] = 0;
        assert_non_null(dns_answer_fault(bytes_of(answer, len), asked, &ours));
        for (size_t cut = 0; cut < 12; cut++) {
                assert_non_null(dns_answer_fault(bytes_of(answer, cut), asked, &ours));
                assert_false(ours);
        }
        char label[300];
        memset(label, 'a', sizeof label);
        assert_int_equal(dns_query(1, bytes_of(label, 63), query), 12 + 64 + 1 + 4);
        assert_int_equal(dns_query(1, bytes_of(label, 64), query), 0);
        for (size_t i = 50; i < sizeof label; i += 51)
                label[i] = '.';
        assert_int_not_equal(dns_query(1, bytes_of(label, 253), query), 0);
        assert_int_equal(dns_query(1, bytes_of(label, 254), query), 0);
        assert_int_equal(dns_query(1, BYTES("a..b"), query), 0);
}

static void test_http(void **state)
{
        (void)state;
        static const struct {
                const char *text;
                int status;
        } rows[] = {
                {"HTTP/1.1 200 OK\r\n", 200},
                {"HTTP/1.0 404", 404},
                {"HTTP/1.1 204\r\n", 204},
                {"HTTP/1.1 20", 0},
                {"", 0},
                {"HTTP/1.1 099", -1},
                {"HTTP/1.1 600", -1},
                {"HTTP/2 200 ", -1},
                {"HTTP/1.x 200", -1},
                {"SSH-2.0-OpenSSH", -1},
                {"HTTP/1.1  200", -1},
                {"http/1.1 200", -1},
        };
        for (size_t i = 0; i < COUNT_OF(rows); i++)
                assert_int_equal(http_status(bytes_of_str(rows[i].text)), rows[i].status);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_positions),
                cmocka_unit_test(test_tail),
                cmocka_unit_test(test_merge),
                cmocka_unit_test(test_scan),
                cmocka_unit_test(test_damaged_replies),
                cmocka_unit_test(test_dns),
                cmocka_unit_test(test_http),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
