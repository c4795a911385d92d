/* stash.c - the arguments of the command that runs next, borrowed until its notification. */
#include "plugin.h"

enum {
        COPY_LEN_MAX = 44, /* Redis re-encodes in place only what is shorter */
};

void stash_begin(struct stash *stash, const struct rule *rule)
{
        stash->rule = rule;
        stash->count = 0;
        stash->next = 0;
        stash->used = false;
        stash->copies.len = 0;
}

static void grow(struct stash *stash)
{
        stash->size = stash->size == 0 ? 64 : stash->size * 2;
        stash->arguments = plugin_resize(stash->arguments, stash->size, sizeof(*stash->arguments),
                                         "the arguments of a command");
}

void stash_add(struct stash *stash, struct redis_string *string, bool copy)
{
        if (stash->count == stash->size)
                grow(stash);
        struct stash_argument *argument = &stash->arguments[stash->count++];
        argument->string = string;
        argument->copy_len = UINT32_MAX;
        if (!copy)
                return;
        struct bytes value = plugin_bytes(string);
        if (value.len > COPY_LEN_MAX)
                return;
        argument->copy_at = (uint32_t)stash->copies.len;
        argument->copy_len = (uint32_t)value.len;
        buffer_bytes(&stash->copies, value);
        plugin_must(stash->copies.err, "the arguments of a command");
}

struct bytes stash_bytes(const struct stash *stash, unsigned at)
{
        const struct stash_argument *argument = &stash->arguments[at];
        if (argument->copy_len == UINT32_MAX)
                return plugin_bytes(argument->string);
        return bytes_of(stash->copies.ptr + argument->copy_at, argument->copy_len);
}
