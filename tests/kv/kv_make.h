/* Short ways to say a transaction in a test. */
#ifndef TESTS_KV_MAKE_H
#define TESTS_KV_MAKE_H

#include "kv/kv.h"

#include "../cmocka_all.h"

static inline struct bytes txn_end(struct kv_build *build, struct buffer *out)
{
        buffer_reset(out);
        assert_int_equal(kv_build_end(build, out), ERR_NONE);
        kv_build_fini(build);
        return buffer_view(out);
}

static inline void then_put(struct kv_build *build, const char *key, const char *value)
{
        struct kv_step step = {
                .op = KV_PUT, .key = bytes_of_str(key), .value = bytes_of_str(value)};
        kv_build_step(build, false, &step);
}

static inline void then_do(struct kv_build *build, enum kv_op op, const char *key, uint32_t flags)
{
        struct kv_step step = {.op = op, .key = bytes_of_str(key), .flags = flags};
        kv_build_step(build, false, &step);
}

static inline void when(struct kv_build *build, const char *key, enum kv_what what,
                        enum kv_relation relation, uint64_t number)
{
        struct kv_condition condition = {
                .key = bytes_of_str(key), .what = what, .relation = relation, .number = number};
        kv_build_condition(build, &condition);
}

#endif
