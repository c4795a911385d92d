/* json.decode and json.encode for merge functions. Decoded: objects and arrays are tables, null is
 * json.null. Encoded: a table whose keys are 1..n is an array, every other one (the empty one too)
 * an object with its keys in order, so that the same value has one text everywhere. What is
 * malformed, too deep or cannot be a value raises an error. */
#include "merge/merge_priv.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
        DEPTH_MAX = 32,
        NUMBER_LEN_MAX = 40,
};

struct text {
        const char *at;
        const char *end;
        unsigned depth;
};

static char null_mark;

static _Noreturn void malformed(lua_State *lua, const char *what)
{
        (void)luaL_error(lua, "this is no JSON: %s", what);
        abort(); /* luaL_error does not return */
}

static void skip_blanks(struct text *text)
{
        while (text->at < text->end && strchr(" \t\r\n", *text->at) != NULL && *text->at != 0)
                text->at++;
}

/* The next byte that is no blank, 0 at the end. */
static char peek(struct text *text)
{
        skip_blanks(text);
        return text->at < text->end ? *text->at : 0;
}

static unsigned hex4(lua_State *lua, struct text *text)
{
        unsigned code = 0;
        for (unsigned i = 0; i < 4; i++) {
                char digit = text->at < text->end ? *text->at++ : 0;
                unsigned value = 16;
                if (digit >= '0' && digit <= '9')
                        value = (unsigned)(digit - '0');
                else if ((digit | 0x20) >= 'a' && (digit | 0x20) <= 'f')
                        value = (unsigned)((digit | 0x20) - 'a' + 10);
                if (value == 16)
                        malformed(lua, "an escape is not of four hexadecimal digits");
                code = code << 4 | value;
        }
        return code;
}

static void add_utf8(luaL_Buffer *buffer, unsigned code)
{
        if (code < 0x80) {
                luaL_addchar(buffer, (char)code);
                return;
        }
        if (code < 0x800) {
                luaL_addchar(buffer, (char)(0xc0 | code >> 6));
        } else {
                if (code < 0x10000) {
                        luaL_addchar(buffer, (char)(0xe0 | code >> 12));
                } else {
                        luaL_addchar(buffer, (char)(0xf0 | code >> 18));
                        luaL_addchar(buffer, (char)(0x80 | (code >> 12 & 0x3f)));
                }
                luaL_addchar(buffer, (char)(0x80 | (code >> 6 & 0x3f)));
        }
        luaL_addchar(buffer, (char)(0x80 | (code & 0x3f)));
}

static void decode_escape(lua_State *lua, struct text *text, luaL_Buffer *buffer)
{
        static const char marks[] = "\"\\/bfnrt";
        static const char means[] = "\"\\/\b\f\n\r\t";
        char mark = text->at < text->end ? *text->at++ : 0;
        const char *known = mark == 0 ? NULL : strchr(marks, mark);
        if (known != NULL) {
                luaL_addchar(buffer, means[known - marks]);
                return;
        }
        if (mark != 'u')
                malformed(lua, "an escape is not known");
        unsigned code = hex4(lua, text);
        if (code >= 0xdc00 && code < 0xe000)
                malformed(lua, "half a surrogate pair");
        if (code >= 0xd800 && code < 0xdc00) {
                if (text->end - text->at < 2 || text->at[0] != '\\' || text->at[1] != 'u')
                        malformed(lua, "half a surrogate pair");
                text->at += 2;
                unsigned low = hex4(lua, text);
                if (low < 0xdc00 || low >= 0xe000)
                        malformed(lua, "half a surrogate pair");
                code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        }
        add_utf8(buffer, code);
}

static void decode_string(lua_State *lua, struct text *text)
{
        luaL_Buffer buffer;
        luaL_buffinit(lua, &buffer);
        text->at++;
        while (text->at < text->end && *text->at != '"') {
                char byte = *text->at++;
                if ((unsigned char)byte < ' ')
                        malformed(lua, "a control character in a string");
                if (byte == '\\')
                        decode_escape(lua, text, &buffer);
                else
                        luaL_addchar(&buffer, byte);
        }
        if (text->at == text->end)
                malformed(lua, "a string has no end");
        text->at++;
        luaL_pushresult(&buffer);
}

static void decode_number(lua_State *lua, struct text *text)
{
        char copy[NUMBER_LEN_MAX + 1];
        size_t len = 0;
        while (text->at < text->end && strchr("+-.eE0123456789", *text->at) != NULL &&
               *text->at != 0) {
                if (len == NUMBER_LEN_MAX)
                        malformed(lua, "a number is too long");
                copy[len++] = *text->at++;
        }
        copy[len] = 0;
        const char *digits = copy + (copy[0] == '-');
        if (*digits < '0' || *digits > '9' || copy[len - 1] == '.' ||
            lua_stringtonumber(lua, copy) != len + 1)
                malformed(lua, "a value is expected");
}

static void decode_value(lua_State *lua, struct text *text);

static void decode_array(lua_State *lua, struct text *text)
{
        lua_Integer count = 0;
        lua_newtable(lua);
        text->at++;
        if (peek(text) == ']') {
                text->at++;
                return;
        }
        for (;;) {
                decode_value(lua, text);
                lua_seti(lua, -2, ++count);
                char mark = peek(text);
                text->at += mark != 0;
                if (mark == ']')
                        return;
                if (mark != ',')
                        malformed(lua, "a comma or ] is expected");
        }
}

static void decode_object(lua_State *lua, struct text *text)
{
        lua_newtable(lua);
        text->at++;
        if (peek(text) == '}') {
                text->at++;
                return;
        }
        for (;;) {
                if (peek(text) != '"')
                        malformed(lua, "a name is expected");
                decode_string(lua, text);
                if (peek(text) != ':')
                        malformed(lua, "a colon is expected");
                text->at++;
                decode_value(lua, text);
                lua_settable(lua, -3);
                char mark = peek(text);
                text->at += mark != 0;
                if (mark == '}')
                        return;
                if (mark != ',')
                        malformed(lua, "a comma or } is expected");
        }
}

static bool decode_word(lua_State *lua, struct text *text)
{
        static const char *const words[] = {"true", "false", "null"};
        for (unsigned i = 0; i < 3; i++) {
                size_t len = strlen(words[i]);
                if ((size_t)(text->end - text->at) < len || memcmp(text->at, words[i], len) != 0)
                        continue;
                text->at += len;
                if (i == 2)
                        lua_pushlightuserdata(lua, &null_mark);
                else
                        lua_pushboolean(lua, i == 0);
                return true;
        }
        return false;
}

static void decode_value(lua_State *lua, struct text *text)
{
        luaL_checkstack(lua, 8, NULL);
        if (++text->depth > DEPTH_MAX)
                malformed(lua, "it is too deep");
        char mark = peek(text);
        if (mark == '{')
                decode_object(lua, text);
        else if (mark == '[')
                decode_array(lua, text);
        else if (mark == '"')
                decode_string(lua, text);
        else if (!decode_word(lua, text))
                decode_number(lua, text);
        text->depth--;
}

static int decode(lua_State *lua)
{
        size_t len;
        const char *at = luaL_checklstring(lua, 1, &len);
        struct text text = {.at = at, .end = at + len};
        run_charge(lua, len / 8);
        decode_value(lua, &text);
        if (peek(&text) != 0 || text.at != text.end)
                malformed(lua, "something stands after its end");
        return 1;
}

/* ---- encode: pieces are put into a list, and joined at the end */

struct pieces {
        int list; /* where it is on the stack */
        lua_Integer count;
        unsigned depth;
};

/* Takes the string on the stack. */
static void piece(lua_State *lua, struct pieces *pieces)
{
        run_charge(lua, 1);
        lua_seti(lua, pieces->list, ++pieces->count);
}

static void piece_text(lua_State *lua, struct pieces *pieces, const char *text)
{
        (void)lua_pushstring(lua, text);
        piece(lua, pieces);
}

static void encode_string(lua_State *lua, struct pieces *pieces, int index)
{
        size_t len;
        luaL_Buffer buffer;
        const char *text = lua_tolstring(lua, index, &len);
        luaL_buffinit(lua, &buffer);
        luaL_addchar(&buffer, '"');
        for (size_t i = 0; i < len; i++) {
                unsigned char byte = (unsigned char)text[i];
                if (byte < ' ') {
                        char escape[8];
                        (void)snprintf(escape, sizeof escape, "\\u%04x", byte);
                        luaL_addstring(&buffer, escape);
                        continue;
                }
                if (byte == '"' || byte == '\\')
                        luaL_addchar(&buffer, '\\');
                luaL_addchar(&buffer, (char)byte);
        }
        luaL_addchar(&buffer, '"');
        luaL_pushresult(&buffer);
        piece(lua, pieces);
}

static void encode_number(lua_State *lua, struct pieces *pieces, int index)
{
        char text[40];
        double value = lua_tonumber(lua, index);
        if (lua_isinteger(lua, index))
                (void)snprintf(text, sizeof text, LUA_INTEGER_FMT, lua_tointeger(lua, index));
        else if (isfinite(value))
                (void)snprintf(text, sizeof text, "%.17g", value);
        else
                (void)luaL_error(lua, "JSON has no number that is not finite");
        piece_text(lua, pieces, text);
}

static void encode_value(lua_State *lua, struct pieces *pieces, int index);

static void encode_table(lua_State *lua, struct pieces *pieces, int index)
{
        keys_sorted(lua, index);
        int keys = lua_gettop(lua);
        lua_Integer count = luaL_len(lua, keys);
        bool array = count > 0 && lua_geti(lua, keys, count) == LUA_TNUMBER &&
                     lua_isinteger(lua, -1) && lua_tointeger(lua, -1) == count;
        lua_settop(lua, keys);
        array = array && lua_geti(lua, keys, 1) == LUA_TNUMBER && lua_isinteger(lua, -1) &&
                lua_tointeger(lua, -1) == 1;
        lua_settop(lua, keys);
        piece_text(lua, pieces, array ? "[" : "{");
        for (lua_Integer i = 1; i <= count; i++) {
                if (i > 1)
                        piece_text(lua, pieces, ",");
                if (lua_geti(lua, keys, i) != LUA_TSTRING && !array)
                        (void)luaL_error(lua, "a name in JSON is a string");
                if (!array) {
                        encode_string(lua, pieces, lua_gettop(lua));
                        piece_text(lua, pieces, ":");
                }
                lua_gettable(lua, index);
                encode_value(lua, pieces, lua_gettop(lua));
                lua_settop(lua, keys);
        }
        piece_text(lua, pieces, array ? "]" : "}");
        lua_settop(lua, keys - 1);
}

static void encode_value(lua_State *lua, struct pieces *pieces, int index)
{
        int type = lua_type(lua, index);
        luaL_checkstack(lua, 8, NULL);
        if (++pieces->depth > DEPTH_MAX)
                (void)luaL_error(lua, "the value is too deep for JSON");
        if (type == LUA_TTABLE)
                encode_table(lua, pieces, index);
        else if (type == LUA_TSTRING)
                encode_string(lua, pieces, index);
        else if (type == LUA_TNUMBER)
                encode_number(lua, pieces, index);
        else if (type == LUA_TBOOLEAN)
                piece_text(lua, pieces, lua_toboolean(lua, index) != 0 ? "true" : "false");
        else if (type == LUA_TLIGHTUSERDATA)
                piece_text(lua, pieces, "null");
        else
                (void)luaL_error(lua, "JSON has no %s", lua_typename(lua, type));
        pieces->depth--;
}

/* The upvalue is table.concat. */
static int encode(lua_State *lua)
{
        luaL_checkany(lua, 1);
        lua_settop(lua, 1);
        lua_newtable(lua);
        struct pieces pieces = {.list = 2};
        encode_value(lua, &pieces, 1);
        lua_pushvalue(lua, lua_upvalueindex(1));
        lua_pushvalue(lua, 2);
        lua_call(lua, 1, 1);
        return 1;
}

void json_open(lua_State *lua)
{
        lua_newtable(lua);
        lua_pushcfunction(lua, decode);
        lua_setfield(lua, -2, "decode");
        luaL_requiref(lua, "table", luaopen_table, 0);
        lua_getfield(lua, -1, "concat");
        lua_pushcclosure(lua, encode, 1);
        lua_setfield(lua, -3, "encode");
        lua_pop(lua, 1);
        lua_pushlightuserdata(lua, &null_mark);
        lua_setfield(lua, -2, "null");
}
