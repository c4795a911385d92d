/* Services in DNS: which names are ours, what they answer, in which order, and that no name,
 * however odd, is read beyond its end. */
#include "service.h"

#include "../../reader/view_of.h"

#include "../../cmocka_all.h"
#include "base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct view_reader *reader;
static const struct view *view;
static const uint8_t zone_wire[] = "\7example\4test";
static struct bytes zone;

/* "a.b" and the zone, in wire form. */
static struct bytes wire_of(const char *text, uint8_t wire[256])
{
        size_t len = 0;
        while (*text != '\0') {
                size_t label = strcspn(text, ".");
                wire[len++] = (uint8_t)label;
                memcpy(wire + len, text, label);
                len += label;
                text += label + (text[label] == '.');
        }
        memcpy(wire + len, zone.ptr, zone.len);
        return bytes_of(wire, len + zone.len);
}

static void ask(const char *name, enum service_question question, struct service_answer *ret)
{
        uint8_t wire[256];
        struct answer_client client = {0};
        service_answer_make(view, wire_of(name, wire), zone, question, NULL, 0, &client, ret);
}

static int setup(void **state)
{
        char folder[] = "/tmp/meridian-test-service-XXXXXX";
        char path[64];
        struct heap heap;
        struct board_build build;
        struct buffer page;
        struct view_writer *writer = NULL;
        static const char *const instances[][2] = {
                {"pay/ap", "10.3.0.1:80 region ap-southeast"},
                {"pay/eu-1", "10.2.0.1:80 region eu-west weight 5"},
                {"pay/eu-2", "[::1]:81 region eu-west weight 9"},
                {"pay/us", "10.1.0.1:80 region us-east"},
        };
        (void)state;
        zone = bytes_of(zone_wire, sizeof zone_wire);
        if (mkdtemp(folder) == NULL)
                return -1;
        snprintf(path, sizeof path, "%s/view", folder);
        heap_init(&heap, 0);
        buffer_init(&page, &heap);
        board_build_init(&build, &heap);
        for (size_t i = 0; i < COUNT_OF(instances); i++)
                board_build_add(&build, BOARD_SERVICES, bytes_of_str(instances[i][0]),
                                bytes_of_str(instances[i][1]));
        if (board_build_end(&build, 1, &page) != ERR_NONE ||
            view_writer_open(path, VIEW_GROUP_DEFAULT, &writer, NULL, 0) != ERR_NONE ||
            view_of(writer, buffer_view(&page), -1) != ERR_NONE)
                return -1;
        reader = view_reader_new(path);
        if (view_reader_refresh(reader, NULL, 0) != ERR_NONE)
                return -1;
        view = view_enter(reader, 0);
        view_writer_close(writer);
        board_build_fini(&build);
        buffer_fini(&page);
        (void)unlink(path);
        return rmdir(folder);
}

static int teardown(void **state)
{
        (void)state;
        view_leave(reader, 0, view);
        view_reader_free(reader);
        return 0;
}

static void test_names(void **state)
{
        static const struct {
                const char *name;
                enum service_question question;
                enum service_kind kind;
                size_t count;
        } rows[] = {
                {"_pay._tcp", SERVICE_ASKS_SRV, SERVICE_SRV, 4},
                {"_pay._udp", SERVICE_ASKS_SRV, SERVICE_SRV, 4},
                {"_pay._tcp", SERVICE_ASKS_A, SERVICE_EMPTY, 0},
                {"_pay._sctp", SERVICE_ASKS_SRV, SERVICE_PASS, 0},
                {"_none._tcp", SERVICE_ASKS_SRV, SERVICE_PASS, 0},
                {"pay._tcp", SERVICE_ASKS_SRV, SERVICE_PASS, 0},
                {"x._pay._tcp", SERVICE_ASKS_SRV, SERVICE_PASS, 0},
                {"_tcp", SERVICE_ASKS_SRV, SERVICE_EMPTY, 0},
                {"service", SERVICE_ASKS_A, SERVICE_EMPTY, 0},
                {"pay.service", SERVICE_ASKS_A, SERVICE_ADDRESSES, 1},
                {"pay.service", SERVICE_ASKS_AAAA, SERVICE_ADDRESSES, 1},
                {"pay.service", SERVICE_ASKS_SRV, SERVICE_EMPTY, 0},
                {"none.service", SERVICE_ASKS_A, SERVICE_PASS, 0},
                {"us.pay.service", SERVICE_ASKS_A, SERVICE_ADDRESSES, 1},
                {"us.pay.service", SERVICE_ASKS_AAAA, SERVICE_EMPTY, 0},
                {"us.pay.service", SERVICE_ASKS_OTHER, SERVICE_EMPTY, 0},
                {"none.pay.service", SERVICE_ASKS_A, SERVICE_PASS, 0},
                {"a.us.pay.service", SERVICE_ASKS_A, SERVICE_PASS, 0},
                {"www", SERVICE_ASKS_A, SERVICE_PASS, 0},
                {"", SERVICE_ASKS_A, SERVICE_PASS, 0},
        };
        struct service_answer answer;
        (void)state;
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                ask(rows[i].name, rows[i].question, &answer);
                if (answer.kind != rows[i].kind || answer.count != rows[i].count)
                        fail_msg("%s: kind %d, %zu records", rows[i].name, (int)answer.kind,
                                 answer.count);
        }
}

static void test_srv(void **state)
{
        struct service_answer answer;
        uint8_t rdata[SERVICE_RDATA_SIZE];
        static const uint8_t first[] = "\0\0\0\11\0\121\4eu-2\3pay\7service\7example\4test";
        (void)state;
        ask("_pay._tcp", SERVICE_ASKS_SRV, &answer);
        assert_int_equal(service_srv_rdata(&answer.instances[0], zone, rdata), sizeof first);
        assert_memory_equal(rdata, first, sizeof first);
        assert_int_equal(answer.instances[1].rank, 0); /* the same region, less weight */
        assert_int_equal(answer.instances[2].rank, 1);
        uint8_t long_zone[250] = {0};
        assert_int_equal(service_srv_rdata(&answer.instances[0],
                                           bytes_of(long_zone, sizeof long_zone), rdata),
                         0);
}

/* Bytes of exact size, so that a sanitizer sees what is read too far. */
static void test_odd_names(void **state)
{
        struct rng rng;
        (void)state;
        rng_init(&rng, 7, 0);
        for (int round = 0; round < 20000; round++) {
                struct service_answer answer;
                struct answer_client client = {0};
                uint8_t wire[256];
                struct bytes name = wire_of("us.pay.service", wire);
                size_t len = name.len - (rng_chance(&rng, 500) ? rng_below(&rng, name.len) : 0);
                uint8_t *copy = malloc(len);
                assert_non_null(copy);
                memcpy(copy, wire, len);
                for (uint64_t i = rng_below(&rng, 4); i > 0; i--)
                        copy[rng_below(&rng, len)] = (uint8_t)rng_next(&rng);
                service_answer_make(view, bytes_of(copy, len), zone, SERVICE_ASKS_A, NULL, 0,
                                    &client, &answer);
                free(copy);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_names),
                cmocka_unit_test(test_srv),
                cmocka_unit_test(test_odd_names),
        };
        return cmocka_run_group_tests(tests, setup, teardown);
}
