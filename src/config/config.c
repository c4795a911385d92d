/* Reads the daemon's configuration. Each key of the text is looked up in one table, which knows its
 * section, its kind and where it goes. Parsing stops at the first fault, with the file, the line,
 * the key and what to do. Whatever bytes come, nothing is read past their end. */
#include "config/config.h"
#include "base/check.h"
#include "base/digits.h"
#include "base/heap.h"
#include "base/lexer.h"
#include "council/council.h"
#include "io/io.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#define CONFIG_BYTES_MAX ((size_t)1 << 20)

struct parser {
        struct lexer lexer;
        struct token token; /* the one to be looked at next */
        const char *path;
        struct config *config;
        struct config_error *error;
        const struct section_row *section;
        uint64_t seen; /* bit i: key_rows[i] */
};

static void token_next(struct parser *parser)
{
        parser->token = lexer_next(&parser->lexer);
}

/* ---- keys ---- */

enum key_kind {
        KEY_NAME,
        KEY_NODE,
        KEY_PATH,
        KEY_ADDRESS,
        KEY_ADDRESSES, /* may be given several times */
        KEY_LEVEL,
        KEY_SWITCH,
        KEY_NUMBER, /* 1 to the row's max */
};

struct section_row {
        const char *name;
};

static const struct section_row section_rows[] = {{""},      {"pki"},      {"listen"},
                                                  {"redis"}, {"postgres"}, {"lab"}};

struct key_row {
        const char *section;
        const char *key;
        enum key_kind kind;
        bool required;
        size_t offset;
        uint32_t max; /* KEY_NUMBER */
};

#define ROW(section, key, kind, required, field)                                                   \
        {                                                                                          \
                section, key, kind, required, offsetof(struct config, field), 0                    \
        }
#define ROW_NUMBER(section, key, max, field)                                                       \
        {                                                                                          \
                section, key, KEY_NUMBER, false, offsetof(struct config, field), max               \
        }

static const struct key_row key_rows[] = {
        ROW("", "cluster", KEY_NAME, true, cluster),
        ROW("", "region", KEY_NAME, true, region),
        ROW("", "node", KEY_NODE, true, node),
        ROW("", "topology", KEY_PATH, true, topology),
        ROW("", "data_dir", KEY_PATH, true, data_dir),
        ROW("", "run_dir", KEY_PATH, true, run_dir),
        ROW("pki", "ca", KEY_PATH, true, pki_ca),
        ROW("pki", "cert", KEY_PATH, true, pki_cert),
        ROW("pki", "key", KEY_PATH, true, pki_key),
        ROW("pki", "crl", KEY_PATH, false, pki_crl),
        ROW("listen", "link", KEY_ADDRESS, true, link),
        ROW("listen", "admin", KEY_ADDRESS, true, admin),
        ROW("listen", "locks", KEY_ADDRESS, true, locks),
        ROW("", "redis", KEY_ADDRESS, false, redis),
        ROW("redis", "node", KEY_ADDRESSES, false, redis_nodes),
        ROW("redis", "cluster", KEY_SWITCH, false, redis_cluster),
        ROW("redis", "master", KEY_NAME, false, redis_master),
        ROW("redis", "password", KEY_PATH, false, redis_password),
        ROW("redis", "user", KEY_NAME, false, redis_user),
        ROW("redis", "tls", KEY_SWITCH, false, redis_tls),
        ROW("redis", "ca", KEY_PATH, false, redis_ca),
        ROW("redis", "cert", KEY_PATH, false, redis_cert),
        ROW("redis", "key", KEY_PATH, false, redis_key),
        ROW("postgres", "server", KEY_ADDRESS, false, postgres),
        ROW("postgres", "write", KEY_ADDRESS, false, postgres_write),
        ROW("postgres", "read", KEY_ADDRESS, false, postgres_read),
        ROW("postgres", "follow", KEY_ADDRESS, false, postgres_follow),
        ROW_NUMBER("postgres", "connections", 10000, postgres_connections),
        ROW_NUMBER("postgres", "wait", 600000, postgres_wait_ms),
        ROW_NUMBER("postgres", "read_lag", 86400000, postgres_read_lag_ms),
        ROW("", "dns", KEY_ADDRESS, false, dns),
        ROW("", "edge", KEY_ADDRESS, false, edge),
        ROW("", "geo", KEY_PATH, false, geo),
        ROW("postgres", "bin", KEY_PATH, false, warden.bin),
        ROW("postgres", "home", KEY_PATH, false, warden.home),
        ROW("postgres", "password", KEY_PATH, false, warden.password),
        ROW("postgres", "data", KEY_PATH, false, warden.data),
        ROW("postgres", "user", KEY_NAME, false, warden.user),
        ROW("postgres", "library", KEY_PATH, false, warden.library),
        ROW("postgres", "init", KEY_PATH, false, warden.init),
        ROW("postgres", "settings", KEY_PATH, false, warden.settings),
        ROW("postgres", "archive", KEY_PATH, false, warden.archive),
        ROW("postgres", "adopt", KEY_PATH, false, warden.adopt),
        ROW_NUMBER("postgres", "keep", 100, warden.keep),
        ROW("", "log_level", KEY_LEVEL, false, log_level),
        ROW_NUMBER("", "level", COUNCIL_LEVEL, level),
        ROW("lab", "impairments", KEY_SWITCH, false, impairments),
        ROW("lab", "hasty", KEY_SWITCH, false, hasty),
};
_Static_assert(COUNT_OF(key_rows) <= 64, "a word has a bit for each key");

static enum err fail(struct parser *parser, unsigned line, const char *format, ...)
        PRINTF_LIKE(3, 4);

static enum err fail(struct parser *parser, unsigned line, const char *format, ...)
{
        char what[768];
        va_list args;
        va_start(args, format);
        vsnprintf(what, sizeof what, format, args);
        va_end(args);
        snprintf(parser->error->text, sizeof parser->error->text, "%.200s, line %u: %s",
                 parser->path, line, what);
        return ERR_MALFORMED;
}

static enum err fail_token(struct parser *parser, struct token token)
{
        return fail(parser, token.line, "%s; %s", token.fault, token.cure);
}

/* What stands before a key in a message: "pki ". */
static const char *section_prefix(const char *section, char text[32])
{
        snprintf(text, 32, "%s%s", section, section[0] == '\0' ? "" : " ");
        return text;
}

/* ---- values ---- */

static bool name_set(char field[64], struct bytes text)
{
        if (text.len == 0 || text.len > 63)
                return false;
        for (size_t i = 0; i < text.len; i++) {
                uint8_t c = text.ptr[i];
                bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                            (c >= '0' && c <= '9') || c == '-' || c == '_';
                if (!good)
                        return false;
        }
        memcpy(field, text.ptr, text.len);
        field[text.len] = '\0';
        return true;
}

static bool number_set(uint32_t *field, struct bytes text, uint32_t max)
{
        uint64_t value;
        if (!digits_parse(text, max, &value) || value == 0)
                return false;
        *field = (uint32_t)value;
        return true;
}

/* A relative path is meant from the folder of the configuration. */
static bool path_set(char field[CONFIG_TEXT_MAX], struct bytes text, const char *config_path)
{
        const char *slash = strrchr(config_path, '/');
        int dir_len = text.ptr[0] == '/' || slash == NULL ? 0 : (int)(slash - config_path) + 1;
        int len = snprintf(field, CONFIG_TEXT_MAX, "%.*s%.*s", dir_len, config_path,
                           BYTES_ARGS(text));
        return len > 0 && len < CONFIG_TEXT_MAX && memchr(text.ptr, '\0', text.len) == NULL;
}

static bool host_valid(const char *host)
{
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        return uv_ip4_addr(host, 1, &in) == 0 || uv_ip6_addr(host, 1, &in6) == 0;
}

/* 127.0.0.1:7401 or [::1]:7401. */
static bool address_set(struct config_address *field, struct bytes text)
{
        uint64_t port;
        size_t colon = text.len;
        while (colon > 0 && text.ptr[colon - 1] != ':')
                colon--;
        if (colon == 0 ||
            !digits_parse(bytes_of(text.ptr + colon, text.len - colon), 65535, &port) || port == 0)
                return false;
        struct bytes host = bytes_of(text.ptr, colon - 1);
        bool bracketed = host.len >= 2 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']';
        if (bracketed)
                host = bytes_of(host.ptr + 1, host.len - 2);
        if (host.len == 0 || host.len >= CONFIG_HOST_MAX ||
            bracketed != (memchr(host.ptr, ':', host.len) != NULL))
                return false;
        memcpy(field->host, host.ptr, host.len);
        field->host[host.len] = '\0';
        field->port = (uint16_t)port;
        return host_valid(field->host);
}

static bool addresses_add(struct config_nodes *field, struct bytes text)
{
        if (field->count == CONFIG_NODES_MAX || !address_set(&field->items[field->count], text))
                return false;
        field->count++;
        return true;
}

/* The place of a word in a list; -1 where it is not in it. */
static int word_index(struct bytes text, const char *const *words, size_t count)
{
        for (size_t i = 0; i < count; i++) {
                if (bytes_equal(text, bytes_of_str(words[i])))
                        return (int)i;
        }
        return -1;
}

static bool level_set(enum log_level *field, struct bytes text)
{
        static const char *const levels[] = {"error", "warn", "info", "debug"};
        int index = word_index(text, levels, COUNT_OF(levels));
        if (index < 0)
                return false;
        *field = (enum log_level)index;
        return true;
}

static bool switch_set(bool *field, struct bytes text)
{
        static const char *const words[] = {"off", "on", "no", "yes", "false", "true"};
        int index = word_index(text, words, COUNT_OF(words));
        *field = index % 2 == 1;
        return index >= 0;
}

/* What would be a value; `text` is room for it. */
static const char *value_help(const struct key_row *row, char text[64])
{
        switch (row->kind) {
        case KEY_NAME:
                return "use 1 to 63 letters, digits, '-' or '_'";
        case KEY_NODE:
                return "use the number of this node in the topology, 1 or more";
        case KEY_PATH:
                return "use a path of at most 1000 bytes";
        case KEY_ADDRESS:
        case KEY_ADDRESSES:
                return "use an IP address and a port, as in 127.0.0.1:7401 or \"[::1]:7401\"";
        case KEY_LEVEL:
                return "use error, warn, info or debug";
        case KEY_SWITCH:
                return "use on or off";
        case KEY_NUMBER:
                snprintf(text, 64, "use a whole number, 1 to %u", row->max);
                return text;
        }
        UNREACHABLE("a kind that the table does not know");
}

static bool value_set(struct parser *parser, const struct key_row *row, struct bytes text)
{
        void *field = (uint8_t *)parser->config + row->offset;
        switch (row->kind) {
        case KEY_NAME:
                return name_set(field, text);
        case KEY_NODE:
                return number_set(field, text, UINT32_MAX);
        case KEY_PATH:
                return text.len > 0 && path_set(field, text, parser->path);
        case KEY_ADDRESS:
                return address_set(field, text);
        case KEY_ADDRESSES:
                return addresses_add(field, text);
        case KEY_LEVEL:
                return level_set(field, text);
        case KEY_SWITCH:
                return switch_set(field, text);
        case KEY_NUMBER:
                return number_set(field, text, row->max);
        }
        UNREACHABLE("a kind that the table does not know");
}

/* ---- the document ---- */

static const struct key_row *key_find(const char *section, struct bytes key)
{
        for (size_t i = 0; i < COUNT_OF(key_rows); i++) {
                if (strcmp(key_rows[i].section, section) == 0 &&
                    bytes_equal(key, bytes_of_str(key_rows[i].key)))
                        return &key_rows[i];
        }
        return NULL;
}

static const struct section_row *section_find(struct bytes name)
{
        for (size_t i = 1; i < COUNT_OF(section_rows); i++) {
                if (bytes_equal(name, bytes_of_str(section_rows[i].name)))
                        return &section_rows[i];
        }
        return NULL;
}

/* All keys of a section, for the message about an unknown one. */
static const char *keys_of(const char *section, char text[256])
{
        size_t len = 0;
        text[0] = '\0';
        for (size_t i = 0; i < COUNT_OF(key_rows); i++) {
                if (strcmp(key_rows[i].section, section) == 0 && len < 256)
                        len += (size_t)snprintf(text + len, 256 - len, "%s%s", len == 0 ? "" : ", ",
                                                key_rows[i].key);
        }
        return text;
}

static enum err fail_key(struct parser *parser, struct token key)
{
        char keys[256], prefix[32];
        const char *section = parser->section->name;
        return fail(parser, key.line, "unknown key '%s%.*s'; there are: %s",
                    section_prefix(section, prefix), key.text.len > 64 ? 64 : (int)key.text.len,
                    (const char *)key.text.ptr, keys_of(section, keys));
}

/* A value and its end: ';', a new line, '}' or the end of the file. */
static enum err value_parse(struct parser *parser, struct token key)
{
        char prefix[32], help[64];
        const struct key_row *row = key_find(parser->section->name, key.text);
        if (row == NULL)
                return fail_key(parser, key);
        uint64_t bit = (uint64_t)1 << (row - key_rows);
        section_prefix(row->section, prefix);
        if ((parser->seen & bit) != 0 && row->kind != KEY_ADDRESSES)
                return fail(parser, key.line, "the key '%s%s' is given twice; remove one", prefix,
                            row->key);
        parser->seen |= bit;
        struct token value = parser->token;
        if (value.kind == TOKEN_BAD)
                return fail_token(parser, value);
        if (value.kind != TOKEN_WORD)
                return fail(parser, key.line, "the key '%s%s' has no value; %s", prefix, row->key,
                            value_help(row, help));
        if (!value_set(parser, row, value.text))
                return fail(parser, value.line, "'%.*s' is no value for '%s%s'; %s",
                            value.text.len > 200 ? 200 : (int)value.text.len,
                            (const char *)value.text.ptr, prefix, row->key, value_help(row, help));
        token_next(parser);
        bool ended = parser->token.fresh_line || parser->token.kind == TOKEN_END ||
                     parser->token.kind == TOKEN_CLOSE || parser->token.kind == TOKEN_SEPARATOR;
        if (!ended)
                return fail(parser, value.line, "more than one value for '%s%s'; end it with ';'",
                            prefix, row->key);
        if (parser->token.kind == TOKEN_SEPARATOR)
                token_next(parser);
        return ERR_NONE;
}

static enum err section_open(struct parser *parser, struct token name)
{
        const struct section_row *section = section_find(name.text);
        if (parser->section != &section_rows[0])
                return fail(parser, name.line,
                            "a section inside the section '%s'; close that with "
                            "'}' first",
                            parser->section->name);
        if (section == NULL)
                return fail(parser, name.line,
                            "unknown section '%.*s'; there are: pki, listen, redis, postgres, lab",
                            name.text.len > 64 ? 64 : (int)name.text.len,
                            (const char *)name.text.ptr);
        parser->section = section;
        token_next(parser);
        return ERR_NONE;
}

static enum err section_close(struct parser *parser)
{
        if (parser->section == &section_rows[0])
                return fail(parser, parser->token.line, "a '}' without its '{'; remove it");
        parser->section = &section_rows[0];
        token_next(parser);
        if (parser->token.kind == TOKEN_SEPARATOR)
                token_next(parser);
        return ERR_NONE;
}

static enum err entry_parse(struct parser *parser)
{
        struct token key = parser->token;
        if (key.kind == TOKEN_CLOSE)
                return section_close(parser);
        if (key.kind == TOKEN_BAD)
                return fail_token(parser, key);
        if (key.kind != TOKEN_WORD)
                return fail(parser, key.line, "a key is expected here; write `key value;`");
        /* `key: value` is one word with its colon. */
        if (key.text.len > 1 && key.text.ptr[key.text.len - 1] == ':')
                key.text.len--;
        token_next(parser);
        if (parser->token.kind == TOKEN_OPEN)
                return section_open(parser, key);
        if (parser->token.kind == TOKEN_ASSIGN)
                token_next(parser);
        return value_parse(parser, key);
}

static enum err missing_check(struct parser *parser)
{
        char prefix[32], help[64];
        for (size_t i = 0; i < COUNT_OF(key_rows); i++) {
                const struct key_row *row = &key_rows[i];
                if (row->required && (parser->seen & (uint64_t)1 << i) == 0)
                        return fail(parser, parser->token.line, "the key '%s%s' is missing; %s",
                                    section_prefix(row->section, prefix), row->key,
                                    value_help(row, help));
        }
        return ERR_NONE;
}

static bool key_given(const struct parser *parser, const struct key_row *row)
{
        return (parser->seen & (uint64_t)1 << (row - key_rows)) != 0;
}

/* The keys without which the daemon cannot look after a server. */
static enum err warden_check(struct parser *parser)
{
        static const char *const needed[] = {"home", "bin", "server", "password"};
        char help[64];
        bool any = false;
        for (size_t i = 0; i < COUNT_OF(key_rows); i++) {
                size_t at = key_rows[i].offset;
                any = any || (at >= offsetof(struct config, warden) &&
                              at < offsetof(struct config, warden) + sizeof(struct config_warden) &&
                              key_given(parser, &key_rows[i]));
        }
        for (size_t i = 0; any && i < COUNT_OF(needed); i++) {
                const struct key_row *row = key_find("postgres", bytes_of_str(needed[i]));
                if (!key_given(parser, row))
                        return fail(parser, parser->token.line,
                                    "the key 'postgres %s' is missing; %s", row->key,
                                    value_help(row, help));
        }
        return ERR_NONE;
}

static enum err postgres_check(struct parser *parser)
{
        const struct config *config = parser->config;
        /* A node without a server has doors, too; but nothing there follows anybody. */
        if (config->postgres_follow.host[0] != '\0' && config->postgres.host[0] == '\0')
                return fail(parser, parser->token.line,
                            "the key 'postgres server' is missing; say where this node's server "
                            "listens");
        return warden_check(parser);
}

static enum err redis_tls_check(struct parser *parser)
{
        const struct config *config = parser->config;
        bool ca = config->redis_ca[0] != '\0';
        bool cert = config->redis_cert[0] != '\0';
        bool key = config->redis_key[0] != '\0';
        if (!config->redis_tls && (ca || cert || key))
                return fail(parser, parser->token.line,
                            "'redis ca', 'redis cert' and 'redis key' are for TLS; add 'tls on' "
                            "beside them");
        if (config->redis_tls && !ca)
                return fail(parser, parser->token.line,
                            "the key 'redis ca' is missing; name the file with the authority of "
                            "the servers' certificates");
        if (cert != key)
                return fail(parser, parser->token.line,
                            "'redis cert' and 'redis key' belong together; give both or none");
        return ERR_NONE;
}

static enum err redis_check(struct parser *parser)
{
        const struct config *config = parser->config;
        bool nodes = config->redis_nodes.count > 0;
        if (nodes && config->redis.host[0] != '\0')
                return fail(parser, parser->token.line,
                            "'redis' is given as one address and as a section; remove one");
        if (!nodes && (config->redis_cluster || config->redis_master[0] != '\0' ||
                       config->redis_password[0] != '\0' || config->redis_user[0] != '\0' ||
                       config->redis_tls))
                return fail(parser, parser->token.line,
                            "the key 'redis node' is missing; name at least one server");
        if (config->redis_cluster && config->redis_master[0] != '\0')
                return fail(parser, parser->token.line,
                            "'redis cluster on' and 'redis master' exclude each other; a Redis "
                            "Cluster needs no sentinels");
        if (config->redis_user[0] != '\0' && config->redis_password[0] == '\0')
                return fail(parser, parser->token.line,
                            "the key 'redis password' is missing; name the file with the password "
                            "of the user '%s'",
                            config->redis_user);
        return redis_tls_check(parser);
}

static enum err document_parse(struct parser *parser, struct bytes text)
{
        enum err err = ERR_NONE;
        lexer_init(&parser->lexer, text);
        token_next(parser);
        while (err == ERR_NONE && parser->token.kind != TOKEN_END)
                err = entry_parse(parser);
        if (err == ERR_NONE && parser->section != &section_rows[0])
                err = fail(parser, parser->token.line, "the section '%s' has no end; add '}'",
                           parser->section->name);
        if (err == ERR_NONE)
                err = missing_check(parser);
        if (err == ERR_NONE)
                err = redis_check(parser);
        if (err == ERR_NONE)
                err = postgres_check(parser);
        return err;
}

enum err config_parse(struct bytes text, const char *path, struct config *ret_config,
                      struct config_error *error)
{
        struct config *config = calloc(1, sizeof *config);
        struct parser parser = {
                .path = path, .config = config, .error = error, .section = &section_rows[0]};
        snprintf(error->text, sizeof error->text, "no memory for the configuration");
        if (config == NULL)
                return ERR_NOMEM;
        config->log_level = LOG_LEVEL_INFO;
        enum err err = document_parse(&parser, text);
        if (err == ERR_NONE)
                *ret_config = *config;
        free(config);
        return err;
}

enum err config_load(const char *path, struct config *ret_config, struct config_error *error)
{
        struct heap heap;
        struct io_error io_error;
        uint8_t *text;
        size_t len;
        heap_init(&heap, 0);
        enum err err = io_file_read(&heap, path, CONFIG_BYTES_MAX, &text, &len, &io_error);
        if (err != ERR_NONE) {
                snprintf(error->text, sizeof error->text, "%s", io_error.text);
                return err;
        }
        err = config_parse(bytes_of(text, len), path, ret_config, error);
        heap_free(&heap, text);
        return err;
}
