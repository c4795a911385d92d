/* What a merge function may call. Lua's own functions are taken one by one, where what they do
 * depends on their arguments alone and takes no longer than the memory that it makes; the rest is
 * written anew: table.sort (Lua's picks its pivot by the clock), tostring and string.format (which
 * would print addresses), string.find (patterns can take time without end). */
#include "merge/merge_priv.h"

#include <string.h>

enum {
        FIND_LEN_MAX = 64, /* of what is looked for */
        SORT_LEN_MAX = 16384,
};

static const char *const string_names[] = {"byte", "char",    "len", "lower",
                                           "rep",  "reverse", "sub", "upper"};
static const char *const table_names[] = {"concat", "insert", "remove", "unpack"};
static const char *const math_names[] = {"abs",  "ceil",      "floor", "fmod",
                                         "huge", "max",       "min",   "maxinteger",
                                         "sqrt", "tointeger", "type",  "mininteger"};
static const char *const base_names[] = {"assert", "error", "ipairs", "select", "tonumber", "type"};

static int text_of(lua_State *lua)
{
        int type = lua_type(lua, 1);
        luaL_checkany(lua, 1);
        if (type == LUA_TNIL || type == LUA_TBOOLEAN || type == LUA_TNUMBER || type == LUA_TSTRING)
                (void)luaL_tolstring(lua, 1, NULL);
        else
                lua_pushstring(lua, lua_typename(lua, type));
        return 1;
}

/* Calls the upvalue, at a price: what it does takes as long as its arguments are. */
static int charged(lua_State *lua)
{
        size_t steps = 1;
        for (int i = 1; i <= lua_gettop(lua); i++) {
                int type = lua_type(lua, i);
                if (type == LUA_TSTRING || type == LUA_TTABLE)
                        steps += (size_t)lua_rawlen(lua, i) / (type == LUA_TSTRING ? 8 : 1);
        }
        run_charge(lua, steps);
        lua_pushvalue(lua, lua_upvalueindex(1));
        lua_insert(lua, 1);
        lua_call(lua, lua_gettop(lua) - 1, LUA_MULTRET);
        return lua_gettop(lua);
}

/* string.format of plain values, without "%p". The original is the upvalue. */
static int format(lua_State *lua)
{
        const char *at = luaL_checkstring(lua, 1);
        while ((at = strchr(at, '%')) != NULL) {
                at += 1 + strspn(at + 1, "-+ #0.123456789");
                if (*at == 'p' || *at == 'q')
                        return luaL_error(lua, "the format '%%%c' is not there", *at);
                at += *at != 0;
        }
        for (int i = 2; i <= lua_gettop(lua); i++) {
                int type = lua_type(lua, i);
                if (type != LUA_TNUMBER && type != LUA_TSTRING && type != LUA_TBOOLEAN &&
                    type != LUA_TNIL)
                        return luaL_argerror(lua, i, "a plain value is expected");
        }
        lua_pushvalue(lua, lua_upvalueindex(1));
        lua_insert(lua, 1);
        lua_call(lua, lua_gettop(lua) - 1, 1);
        return 1;
}

/* string.find(text, what [, from]): where it begins and ends, or nil. */
static int find(lua_State *lua)
{
        size_t len, what_len;
        const char *text = luaL_checklstring(lua, 1, &len);
        const char *what = luaL_checklstring(lua, 2, &what_len);
        lua_Integer from = luaL_optinteger(lua, 3, 1);
        luaL_argcheck(lua, what_len > 0 && what_len <= FIND_LEN_MAX, 2, "1 to 64 bytes");
        if (from < 1 || (size_t)from > len)
                return 0;
        run_charge(lua, len / 8);
        const char *at = memmem(text + from - 1, len - (size_t)from + 1, what, what_len);
        if (at == NULL)
                return 0;
        lua_pushinteger(lua, at - text + 1);
        lua_pushinteger(lua, at - text + (lua_Integer)what_len);
        return 2;
}

/* Is the value at `a` before that at `b`? With a function at 2, as it says. */
static bool before(lua_State *lua, int a, int b)
{
        a = lua_absindex(lua, a);
        b = lua_absindex(lua, b);
        run_charge(lua, 1);
        if (lua_isnoneornil(lua, 2))
                return lua_compare(lua, a, b, LUA_OPLT) != 0;
        lua_pushvalue(lua, 2);
        lua_pushvalue(lua, a);
        lua_pushvalue(lua, b);
        lua_call(lua, 2, 1);
        bool is = lua_toboolean(lua, -1) != 0;
        lua_pop(lua, 1);
        return is;
}

/* Two sorted runs of the list at `from` become one of that at `to`. */
static void merge_runs(lua_State *lua, int from, int to, lua_Integer low, lua_Integer middle,
                       lua_Integer high)
{
        lua_Integer left = low, right = middle;
        for (lua_Integer at = low; at < high; at++) {
                bool take_left = right >= high;
                if (left < middle && right < high) {
                        lua_geti(lua, from, left);
                        lua_geti(lua, from, right);
                        take_left = !before(lua, -1, -2);
                        lua_pop(lua, 2);
                }
                lua_geti(lua, from, take_left ? left++ : right++);
                lua_seti(lua, to, at);
        }
}

/* table.sort, by merging: equal elements keep their order. */
static int sort(lua_State *lua)
{
        luaL_checktype(lua, 1, LUA_TTABLE);
        if (!lua_isnoneornil(lua, 2))
                luaL_checktype(lua, 2, LUA_TFUNCTION);
        lua_settop(lua, 2);
        lua_Integer count = luaL_len(lua, 1);
        luaL_argcheck(lua, count <= SORT_LEN_MAX, 1, "too long");
        lua_newtable(lua);
        int from = 1, to = 3;
        for (lua_Integer width = 1; width < count; width *= 2) {
                for (lua_Integer low = 1; low <= count; low += 2 * width) {
                        lua_Integer middle = low + width, high = low + 2 * width;
                        middle = middle > count + 1 ? count + 1 : middle;
                        high = high > count + 1 ? count + 1 : high;
                        merge_runs(lua, from, to, low, middle, high);
                }
                int other = from;
                from = to;
                to = other;
        }
        for (lua_Integer i = 1; from != 1 && i <= count; i++) {
                lua_geti(lua, from, i);
                lua_seti(lua, 1, i);
        }
        return 0;
}

/* The order of keys: numbers, then strings. */
static int key_before(lua_State *lua)
{
        int a = lua_type(lua, 1), b = lua_type(lua, 2);
        lua_pushboolean(lua, a == b ? lua_compare(lua, 1, 2, LUA_OPLT) : a == LUA_TNUMBER);
        return 1;
}

void keys_sorted(lua_State *lua, int index)
{
        lua_Integer count = 0;
        index = lua_absindex(lua, index);
        luaL_checkstack(lua, 8, NULL);
        lua_pushcfunction(lua, sort);
        lua_newtable(lua);
        lua_pushnil(lua);
        while (lua_next(lua, index) != 0) {
                lua_pop(lua, 1);
                if (lua_type(lua, -1) != LUA_TNUMBER && lua_type(lua, -1) != LUA_TSTRING)
                        (void)luaL_error(lua, "a key is neither a number nor a string");
                lua_pushvalue(lua, -1);
                lua_seti(lua, -3, ++count);
        }
        lua_pushvalue(lua, -1);
        lua_insert(lua, -3);
        lua_pushcfunction(lua, key_before);
        lua_call(lua, 2, 0);
}

/* The iterator of sorted_pairs: upvalues are the table, its keys, and how many are done. */
static int sorted_next(lua_State *lua)
{
        lua_Integer at = lua_tointeger(lua, lua_upvalueindex(3)) + 1;
        lua_pushinteger(lua, at);
        lua_replace(lua, lua_upvalueindex(3));
        if (lua_geti(lua, lua_upvalueindex(2), at) == LUA_TNIL)
                return 1;
        lua_pushvalue(lua, -1);
        lua_gettable(lua, lua_upvalueindex(1));
        return 2;
}

static int sorted_pairs(lua_State *lua)
{
        luaL_checktype(lua, 1, LUA_TTABLE);
        lua_settop(lua, 1);
        keys_sorted(lua, 1);
        lua_pushinteger(lua, 0);
        lua_pushcclosure(lua, sorted_next, 3);
        return 1;
}

/* A new table with some of the fields of the one on the stack, in its place. With a `price`,
 * calling them counts. */
static void keep(lua_State *lua, const char *const *names, size_t count, bool price)
{
        lua_newtable(lua);
        for (size_t i = 0; i < count; i++) {
                if (lua_getfield(lua, -2, names[i]) == LUA_TFUNCTION && price)
                        lua_pushcclosure(lua, charged, 1);
                lua_setfield(lua, -2, names[i]);
        }
        lua_remove(lua, -2);
}

static void open_string(lua_State *lua)
{
        luaL_requiref(lua, "string", luaopen_string, 0);
        lua_getfield(lua, -1, "format");
        lua_pushcclosure(lua, format, 1);
        lua_insert(lua, -2);
        keep(lua, string_names, sizeof string_names / sizeof string_names[0], true);
        lua_insert(lua, -2);
        lua_setfield(lua, -2, "format");
        lua_pushcfunction(lua, find);
        lua_setfield(lua, -2, "find");
        /* ("x"):rep(3) finds this table, too. */
        lua_pushliteral(lua, "");
        lua_newtable(lua);
        lua_pushvalue(lua, -3);
        lua_setfield(lua, -2, "__index");
        (void)lua_setmetatable(lua, -2);
        lua_pop(lua, 1);
}

void library_open(lua_State *lua)
{
        luaL_requiref(lua, "_G", luaopen_base, 0);
        keep(lua, base_names, sizeof base_names / sizeof base_names[0], false);
        lua_pushcfunction(lua, text_of);
        lua_setfield(lua, -2, "tostring");
        lua_pushcfunction(lua, sorted_pairs);
        lua_setfield(lua, -2, "sorted_pairs");
        open_string(lua);
        lua_setfield(lua, -2, "string");
        luaL_requiref(lua, "table", luaopen_table, 0);
        keep(lua, table_names, sizeof table_names / sizeof table_names[0], true);
        lua_pushcfunction(lua, sort);
        lua_setfield(lua, -2, "sort");
        lua_setfield(lua, -2, "table");
        luaL_requiref(lua, "math", luaopen_math, 0);
        keep(lua, math_names, sizeof math_names / sizeof math_names[0], false);
        lua_setfield(lua, -2, "math");
        json_open(lua);
        lua_setfield(lua, -2, "json");
        /* A chunk gets the registry's globals. */
        lua_rawseti(lua, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
        lua_pushnil(lua);
        lua_setfield(lua, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
}
