/* Merge functions: what they can do, the ways out of the sandbox that are not there, the limits,
 * and that the same siblings always come to the same bytes. */
#include "merge/merge.h"

#include "base/rng.h"

#include "../cmocka_all.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static struct heap heap;
static struct buffer value;
static char why[MERGE_WHY_SIZE];

static const struct merge_sibling two[] = {
        {BYTES_INIT("{\"tea\":2,\"milk\":1}"), 1, 100},
        {BYTES_INIT("{\"tea\":1,\"bread\":3}"), 2, 200},
};

static int setup(void **state)
{
        (void)state;
        heap_init(&heap, 0);
        buffer_init(&value, &heap);
        return 0;
}

static int teardown(void **state)
{
        (void)state;
        buffer_fini(&value);
        return heap.used_bytes == 0 ? 0 : -1;
}

static enum merge_result run(const char *text)
{
        buffer_reset(&value);
        why[0] = 0;
        return merge_run(&heap, bytes_of_str(text), two, COUNT_OF(two), &value, why);
}

static void gives(const char *text, const char *wanted)
{
        if (run(text) != MERGE_DONE)
                fail_msg("%s: %s", text, why);
        if (!bytes_equal(buffer_view(&value), bytes_of_str(wanted)))
                fail_msg("%s: %.*s", text, BYTES_ARGS(buffer_view(&value)));
}

static void test_values(void **state)
{
        (void)state;
        static const struct {
                const char *text;
                const char *value;
        } rows[] = {
                {"return 'a'", "a"},
                {"return 12", "12"},
                {"return 1.5", "1.5"},
                {"return ''", ""},
                {"local s = ... return s[1].value", "{\"tea\":2,\"milk\":1}"},
                {"local s = ... return #s .. ' ' .. s[2].region .. ' ' .. s[2].stamp", "2 2 200"},
                {"return ('x'):rep(3) .. string.upper('y')", "xxxY"},
                {"return string.format('%05.1f|%d|%s', 2.25, 7, 'z')", "002.2|7|z"},
                {"return tostring({}) .. tostring(print) .. tostring(true)", "tableniltrue"},
                {"return string.find('hello', 'l') .. (string.find('hello', '.') or 'no')", "3no"},
                {"local t = {3, 1, 2} table.sort(t) return table.concat(t, ' ')", "1 2 3"},
                {"local t = {'b', 'a', 'B'} table.sort(t) return table.concat(t)", "Bab"},
                {"local t = {3, 1, 2} table.sort(t, function(a, b) return a > b end)\n"
                 "return table.concat(t)",
                 "321"},
                {"local t = {} for i = 1, 200 do t[i] = {i % 3, i} end\n"
                 "table.sort(t, function(a, b) return a[1] < b[1] end)\n"
                 "return t[1][2] .. ' ' .. t[66][2] .. ' ' .. t[67][2]",
                 "3 198 1"},
                {"local o = '' for k, v in sorted_pairs({b = 2, a = 1, [2] = 3, [10] = 4}) do\n"
                 "o = o .. k .. '=' .. v .. ';' end return o",
                 "2=3;10=4;a=1;b=2;"},
                {"return json.encode(json.decode(' {\"b\" : [1, 2.5, true, null, {}], "
                 "\"a\":\"\\\\u00e9\\\\ud83d\\\\ude00\\\\n\"} '))",
                 "{\"a\":\"\xc3\xa9\xf0\x9f\x98\x80\\u000a\",\"b\":[1,2.5,true,null,{}]}"},
                {"return json.encode(9007199254740993)", "9007199254740993"},
                {"return json.encode('\"\\\\')", "\"\\\"\\\\\""},
                {"return math.max(1, 7, 3) .. math.type(1) .. math.tointeger(3.0)", "7integer3"},
        };
        for (size_t i = 0; i < COUNT_OF(rows); i++)
                gives(rows[i].text, rows[i].value);
}

static void test_cart(void **state)
{
        (void)state;
        gives("local cart = {}\n"
              "for _, sibling in ipairs((...)) do\n"
              "  for item, quantity in sorted_pairs(json.decode(sibling.value)) do\n"
              "    cart[item] = math.max(cart[item] or 0, quantity)\n"
              "  end\n"
              "end\n"
              "return json.encode(cart)",
              "{\"bread\":3,\"milk\":1,\"tea\":2}");
}

/* What is not there cannot be called; what is raised ends the call. */
static void test_failures(void **state)
{
        (void)state;
        static const struct {
                const char *text;
                const char *why;
        } rows[] = {
                {"return", "returned a nil"},
                {"return {}", "returned a table"},
                {"return true", "returned a boolean"},
                {"return function() end", "returned a function"},
                {"error('no cart')", "no cart"},
                {"error({})", "no text"},
                {"error(setmetatable({}, {}))", "setmetatable"},
                {"return nil .. 'x'", "concatenate"},
                {"return os.time()", "'os'"},
                {"return io.open('/etc/passwd')", "'io'"},
                {"return require('os')", "'require'"},
                {"return load('return 1')()", "'load'"},
                {"return loadstring('return 1')()", "'loadstring'"},
                {"return dofile('x')", "'dofile'"},
                {"return debug.getinfo(1)", "'debug'"},
                {"return package.path", "'package'"},
                {"return coroutine.create(print)", "'coroutine'"},
                {"pcall(error)", "'pcall'"},
                {"xpcall(error, error)", "'xpcall'"},
                {"return math.random()", "'random'"},
                {"math.randomseed(1)", "'randomseed'"},
                {"for k in pairs({}) do end", "'pairs'"},
                {"return next({})", "'next'"},
                {"return rawset({}, 1, 2)", "'rawset'"},
                {"return getmetatable('').__index", "'getmetatable'"},
                {"return string.dump(error)", "'dump'"},
                {"return ('a'):gsub('a', 'b')", "'gsub'"},
                {"return ('a'):match('a')", "'match'"},
                {"return ('a'):gmatch('a')", "'gmatch'"},
                {"return string.format('%p', {})", "not there"},
                {"return string.format('%-20p', 'x')", "not there"},
                {"return string.format('%s', {})", "plain value"},
                {"return string.find('a', ('b'):rep(65))", "1 to 64"},
                {"collectgarbage()", "'collectgarbage'"},
                {"warn('@on')", "'warn'"},
                {"return _G.os", "'_G'"},
                {"return _ENV.error.x", "index"},
                {"return utf8.char(1)", "'utf8'"},
                {"sorted_pairs({[{}] = 1})", "neither"},
                {"return json.decode('')", "JSON"},
                {"return json.decode('{')", "JSON"},
                {"return json.decode('[1,]')", "JSON"},
                {"return json.decode('01x')", "JSON"},
                {"return json.decode('\"\\\\ud800\"')", "surrogate"},
                {"return json.decode('nan')", "JSON"},
                {"return json.decode(('['):rep(100))", "deep"},
                {"local t = {} t[1] = t return json.encode(t)", "deep"},
                {"return json.encode(0 / 0)", "finite"},
                {"return json.encode(error)", "function"},
                {"x y", "syntax"},
                {"\x1bLua", "binary"},
        };
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                if (run(rows[i].text) != MERGE_FAILED || strstr(why, rows[i].why) == NULL)
                        fail_msg("%s: '%s' (%.*s)", rows[i].text, why,
                                 BYTES_ARGS(buffer_view(&value)));
                assert_int_equal(value.len, 0);
        }
}

static double cpu_s(void)
{
        struct timespec now;
        (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
        return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Whatever is tried, it ends soon; and always the same way. */
static void test_limits(void **state)
{
        (void)state;
        static const struct {
                const char *text;
                enum merge_result result;
        } rows[] = {
                {"while true do end", MERGE_TOO_LONG},
                {"::a:: goto a", MERGE_TOO_LONG},
                {"local function f() return f() end f()", MERGE_TOO_LONG},
                {"for i = 1, 1e9 do local t = {} end", MERGE_TOO_LONG},
                {"local t = {} for i = 1, 16000 do t[i] = -i end\n"
                 "while true do table.sort(t) end",
                 MERGE_TOO_LONG},
                {"local t = {} for i = 1, 9000 do t[i] = i end\n"
                 "while true do table.insert(t, 1, 1) table.remove(t, 1) end",
                 MERGE_TOO_LONG},
                {"local t = {} for i = 1, 3000 do t[i] = i end\n"
                 "while true do table.unpack(t) end",
                 MERGE_TOO_LONG},
                {"local s = ('a'):rep(100000) while true do s:find(('a'):rep(63) .. 'b') end",
                 MERGE_TOO_LONG},
                {"local s = ('a'):rep(100000) while true do s:byte(1, 2000) end", MERGE_TOO_LONG},
                {"local s = ('1,'):rep(5000) s = '[' .. s .. '1]'\n"
                 "while true do json.decode(s) end",
                 MERGE_TOO_LONG},
                {"local s = 'x' while true do s = s .. s end", MERGE_TOO_LARGE},
                {"return ('x'):rep(1e9)", MERGE_TOO_LARGE},
                {"return ('x'):rep(300000)", MERGE_TOO_LARGE},
                {"local s = ('x'):rep(200000) while true do s:upper() end", MERGE_TOO_LONG},
                {"while true do local s = ('x'):rep(200000) end", MERGE_TOO_LARGE},
                {"local t = {} for i = 1, 1e7 do t[i] = i end", MERGE_TOO_LARGE},
                {"local t = {} for i = 1, 1e7 do t[i] = {} end", MERGE_TOO_LARGE},
                {"local function f() return 1 + f() end f()", MERGE_TOO_LARGE},
                {"return string.format('%99.99f', 1) .. ('y'):rep(262144)", MERGE_TOO_LARGE},
        };
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                double began = cpu_s();
                enum merge_result result = run(rows[i].text);
                double took = cpu_s() - began;
                if (result != rows[i].result || took > 60)
                        fail_msg("%s: %s (%s) after %.3f s", rows[i].text,
                                 merge_result_name(result), why, took);
                assert_int_equal(run(rows[i].text), result);
                assert_int_equal(value.len, 0);
        }
}

/* Deep in C, an error must still find its way out. */
static void test_nesting(void **state)
{
        (void)state;
        char text[4096];
        size_t len = 0;
        for (unsigned i = 0; i < 1000; i++)
                text[len++] = '(';
        text[len] = 0;
        assert_int_equal(run(text), MERGE_FAILED);
        assert_int_equal(run("local function f(a, b) table.sort({1, 2, 3}, f) return true end\n"
                             "f()"),
                         MERGE_FAILED);
}

static void test_check(void **state)
{
        (void)state;
        assert_true(merge_check(&heap, BYTES("return 1"), why));
        assert_false(merge_check(&heap, BYTES("return\n1 +"), why));
        assert_non_null(strstr(why, "function:2:"));
        assert_true(merge_check(&heap, BYTES("error('only when it runs')"), why));
}

/* Every allocation fails once. */
static void test_no_memory(void **state)
{
        (void)state;
        uint64_t most = heap.used_bytes;
        assert_int_equal(run("return json.encode(json.decode((...)[1].value))"), MERGE_DONE);
        for (uint64_t limit = most + 1000; limit < 60000; limit += 97) {
                struct heap small;
                struct buffer out;
                heap_init(&small, limit);
                buffer_init(&out, &small);
                enum merge_result result =
                        merge_run(&small, BYTES("return json.encode(json.decode((...)[1].value))"),
                                  two, COUNT_OF(two), &out, why);
                assert_true(result == MERGE_DONE || result == MERGE_TOO_LARGE);
                buffer_fini(&out);
                assert_int_equal(small.used_bytes, 0);
        }
}

/* Random damage to a function and to JSON neither crashes nor gives two answers. */
static void test_damage(void **state)
{
        (void)state;
        static const char good[] =
                "local cart = {} for _, s in ipairs((...)) do for k, v in "
                "sorted_pairs(json.decode(s.value)) do cart[k] = math.max(cart[k] or 0, v) end end "
                "return json.encode(cart)";
        struct rng rng;
        rng_init(&rng, 42, 0);
        for (unsigned i = 0; i < 3000; i++) {
                char text[sizeof good];
                struct buffer again;
                memcpy(text, good, sizeof good);
                for (unsigned k = 0; k < 1 + i % 3; k++)
                        text[rng_below(&rng, sizeof good - 1)] = (char)(32 + rng_below(&rng, 95));
                enum merge_result result = run(text);
                buffer_init(&again, &heap);
                assert_int_equal(
                        merge_run(&heap, bytes_of_str(text), two, COUNT_OF(two), &again, why),
                        result);
                assert_true(bytes_equal(buffer_view(&value), buffer_view(&again)));
                buffer_fini(&again);
        }
}

/* The process's locale makes no difference. */
static void test_locale(void **state)
{
        (void)state;
        const char *before = setlocale(LC_ALL, NULL);
        char copy[64];
        (void)snprintf(copy, sizeof copy, "%s", before);
        (void)setlocale(LC_ALL, "C.UTF-8");
        gives("local t = {'b', 'a', 'B'} table.sort(t) return table.concat(t) .. 1.5", "Bab1.5");
        (void)setlocale(LC_ALL, copy);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_values),   cmocka_unit_test(test_cart),
                cmocka_unit_test(test_failures), cmocka_unit_test(test_limits),
                cmocka_unit_test(test_nesting),  cmocka_unit_test(test_check),
                cmocka_unit_test(test_damage),   cmocka_unit_test(test_no_memory),
                cmocka_unit_test(test_locale),
        };
        return cmocka_run_group_tests(tests, setup, teardown);
}
