/* A call: a new state whose memory is of the given heap and counted, the library, the text, the
 * siblings, the result. Each call has a state of its own, so that nothing a function leaves behind
 * can make a later result differ.
 *
 * Every way to fail ends in the one protected call. Without pcall and coroutines in the library, a
 * function cannot catch the error by which the instruction count ends it. */
#include "merge/merge_priv.h"

#include "base/check.h"

#include <locale.h>
#include <stdio.h>

enum {
        STEPS_EACH = 1000, /* instructions between two looks at the count */
};

FILE *merge_stderr;
FILE *merge_stdin;
FILE *merge_stdout;

struct run {
        struct heap *heap;
        size_t used;
        size_t volume;
        bool memory_out;
        size_t steps;
        bool steps_out;
        struct bytes text;
        const struct merge_sibling *siblings;
        size_t count;
        bool check_only;
        struct buffer *value;
};

const char *merge_result_name(enum merge_result result)
{
        static const char *const names[MERGE_RESULT_COUNT] = {
                [MERGE_DONE] = "done",
                [MERGE_FAILED] = "failed",
                [MERGE_TOO_LONG] = "too-long",
                [MERGE_TOO_LARGE] = "too-large",
        };
        return (unsigned)result < MERGE_RESULT_COUNT ? names[result] : "unknown";
}

static void *run_resize(void *user, void *at, size_t size_old, size_t size)
{
        struct run *run = user;
        size_old = at == NULL ? 0 : size_old; /* else a kind of object */
        if (size == 0) {
                heap_free(run->heap, at);
                run->used -= size_old;
                return NULL;
        }
        size_t more = size > size_old ? size - size_old : 0;
        if (size > size_old && (size > MERGE_BLOCK || run->used + more > MERGE_BYTES ||
                                run->volume + more > MERGE_VOLUME)) {
                run->memory_out = true;
                return NULL;
        }
        void *made = heap_resize(run->heap, at, size);
        if (made == NULL) {
                run->memory_out = true;
                return size > size_old ? NULL : at; /* Lua takes it that shrinking cannot fail */
        }
        run->used = run->used - size_old + size;
        run->volume += more;
        return made;
}

static struct run *run_of(lua_State *lua)
{
        void *user = NULL;
        (void)lua_getallocf(lua, &user);
        return user;
}

void run_charge(lua_State *lua, size_t steps)
{
        struct run *run = run_of(lua);
        run->steps += steps;
        if (run->steps <= MERGE_STEPS)
                return;
        run->steps_out = true;
        (void)luaL_error(lua, "more than %d instructions", MERGE_STEPS);
}

static void run_step(lua_State *lua, lua_Debug *debug)
{
        (void)debug;
        run_charge(lua, STEPS_EACH);
}

static void push_siblings(lua_State *lua, const struct run *run)
{
        lua_createtable(lua, (int)run->count, 0);
        for (size_t i = 0; i < run->count; i++) {
                const struct merge_sibling *sibling = &run->siblings[i];
                lua_createtable(lua, 0, 3);
                (void)lua_pushlstring(
                        lua, sibling->value.len == 0 ? "" : (const char *)sibling->value.ptr,
                        sibling->value.len);
                lua_setfield(lua, -2, "value");
                lua_pushinteger(lua, (lua_Integer)sibling->region);
                lua_setfield(lua, -2, "region");
                lua_pushinteger(lua, (lua_Integer)sibling->stamp);
                lua_setfield(lua, -2, "stamp");
                lua_rawseti(lua, -2, (lua_Integer)i + 1);
        }
}

static int run_protected(lua_State *lua)
{
        struct run *run = lua_touserdata(lua, 1);
        library_open(lua);
        if (luaL_loadbufferx(lua, (const char *)run->text.ptr, run->text.len, "=function", "t") !=
            LUA_OK)
                return lua_error(lua);
        if (run->check_only)
                return 0;
        push_siblings(lua, run);
        lua_sethook(lua, run_step, LUA_MASKCOUNT, STEPS_EACH);
        lua_call(lua, 1, 1);
        lua_sethook(lua, NULL, 0, 0);
        int type = lua_type(lua, -1);
        if (type != LUA_TSTRING && type != LUA_TNUMBER)
                return luaL_error(lua, "it returned a %s, not a string", lua_typename(lua, type));
        size_t len = 0;
        const char *text = lua_tolstring(lua, -1, &len);
        size_t begin = run->value->len;
        buffer_bytes(run->value, bytes_of(text, len));
        if (run->value->err != ERR_NONE) {
                run->value->len = begin;
                run->memory_out = true;
                return luaL_error(lua, "no memory");
        }
        return 0;
}

static enum merge_result run_end(const struct run *run, lua_State *lua, int status, char *why)
{
        const char *text = NULL;
        if (status == LUA_OK)
                return MERGE_DONE;
        if (lua != NULL && lua_type(lua, -1) == LUA_TSTRING)
                text = lua_tostring(lua, -1);
        if (run->memory_out) {
                (void)snprintf(why, MERGE_WHY_SIZE, "it needs more memory than it may have");
                return MERGE_TOO_LARGE;
        }
        (void)snprintf(why, MERGE_WHY_SIZE, "%s",
                       text != NULL ? text : "it raised an error that is no text");
        return run->steps_out ? MERGE_TOO_LONG : MERGE_FAILED;
}

/* Comparing and formatting follow the thread's locale, which must be the same everywhere. */
static enum merge_result run_state(struct run *run, char *why)
{
        int status = LUA_ERRMEM;
        locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
        locale_t before = plain == (locale_t)0 ? (locale_t)0 : uselocale(plain);
        lua_State *lua = lua_newstate(run_resize, run);
        if (lua == NULL) {
                run->memory_out = true;
        } else {
                lua_pushcfunction(lua, run_protected);
                lua_pushlightuserdata(lua, run);
                status = lua_pcall(lua, 1, 0, 0);
        }
        enum merge_result result = run_end(run, lua, status, why);
        if (lua != NULL)
                lua_close(lua);
        if (plain != (locale_t)0) {
                (void)uselocale(before);
                freelocale(plain);
        }
        return result;
}

bool merge_check(struct heap *heap, struct bytes text, char why[static MERGE_WHY_SIZE])
{
        struct run run = {.heap = heap, .text = text, .check_only = true};
        return run_state(&run, why) == MERGE_DONE;
}

enum merge_result merge_run(struct heap *heap, struct bytes text,
                            const struct merge_sibling *siblings, size_t count,
                            struct buffer *value, char why[static MERGE_WHY_SIZE])
{
        struct run run = {
                .heap = heap, .text = text, .siblings = siblings, .count = count, .value = value};
        return run_state(&run, why);
}
