/* The parser: tokens to the fixed struct, driven by the schema's rows; value.c reads what stands
 * behind a key. Open sections are frames on
 * a stack of at most three (document, region or zone, node or soa or name), so nothing recurses.
 * The first fault ends it: `fail` writes the error and every caller returns false up to
 * topology_parse, which wipes the half-filled struct.
 *
 * A name may refer to a region that comes later, so references are kept as numbers of first mention
 * (`mentions`) until the end, when check.c resolves them to ids. */
#include "topology/parse_priv.h"

#include <stdarg.h>
#include <stdio.h>

bool fail_at(struct parser *parser, uint32_t line, uint32_t column, const char *todo,
             const char *format, ...)
{
        struct topology_error *error = parser->error;
        *error = (struct topology_error){.line = line, .column = column};
        va_list arguments;
        va_start(arguments, format);
        (void)vsnprintf(error->what, sizeof error->what, format, arguments);
        va_end(arguments);
        (void)snprintf(error->todo, sizeof error->todo, "%s", todo);
        size_t used = 0;
        for (size_t i = 1; i < parser->depth && used < sizeof error->where; i++) {
                const struct frame *frame = &parser->frames[i];
                used += (size_t)snprintf(error->where + used, sizeof error->where - used,
                                         "%s%s%s%.*s", i > 1 ? ", " : "", frame->row->key,
                                         frame->name.len > 0 ? " " : "", BYTES_ARGS(frame->name));
        }
        if (parser->key.len > 0 && used < sizeof error->where)
                (void)snprintf(error->where + used, sizeof error->where - used, "%s%.*s",
                               used > 0 ? ", " : "",
                               (int)(parser->key.len < 40 ? parser->key.len : 40),
                               (const char *)parser->key.ptr);
        return false;
}

static struct token parser_next(struct parser *parser)
{
        if (parser->peeked) {
                parser->peeked = false;
                return parser->token;
        }
        return lexer_next(&parser->lexer);
}

static struct token parser_peek(struct parser *parser)
{
        parser->token = parser_next(parser);
        parser->peeked = true;
        return parser->token;
}

static struct frame *parser_top(struct parser *parser)
{
        return &parser->frames[parser->depth - 1];
}

/* Entries */

static bool unexpected(struct parser *parser, const struct token *token, const char *wanted)
{
        if (token->kind == TOKEN_BAD)
                return FAIL(parser, token, token->cure, "%s", token->fault);
        if (token->kind == TOKEN_END)
                return FAIL(parser, token, "complete the document", "%s is missing at the end",
                            wanted);
        return FAIL(parser, token, "see the example in docs/topology.conf.example",
                    "'%.*s' stands where %s is expected", SHOWN(token), wanted);
}

/* A list in brackets: elements with commas between them. */
static bool parse_list(struct parser *parser, const struct field_row *row, void *base)
{
        for (;;) {
                struct token token = parser_next(parser);
                if (token.kind == TOKEN_LIST_CLOSE)
                        return true;
                if (token.kind != TOKEN_WORD)
                        return unexpected(parser, &token, "an element of the list or ]");
                if (!value_store(parser, row, base, &token))
                        return false;
                token = parser_next(parser);
                if (token.kind == TOKEN_LIST_CLOSE)
                        return true;
                if (token.kind != TOKEN_SEPARATOR || token.text.ptr[0] != ',')
                        return unexpected(parser, &token, "a comma or ]");
        }
}

/* After a value: a mark, a new line, the section's end. */
static bool parse_value_end(struct parser *parser)
{
        struct token token = parser_peek(parser);
        if (token.kind == TOKEN_SEPARATOR) {
                (void)parser_next(parser);
                return true;
        }
        if (token.kind == TOKEN_CLOSE || token.kind == TOKEN_END || token.fresh_line)
                return true;
        return unexpected(parser, &token, "';' or a new line");
}

static bool parse_value(struct parser *parser, const struct token *key, bool assigned)
{
        struct frame *frame = parser_top(parser);
        size_t index = 0;
        const struct field_row *row = section_field(frame->row, parser->key, &index);
        if (row == NULL)
                return FAIL(parser, key, "correct the spelling, or remove it",
                            "the key '%.*s' is not known here", SHOWN(key));
        if ((frame->seen & (1u << index)) != 0)
                return FAIL(parser, key, "keep one of them", "'%s' is given twice", row->key);
        frame->seen |= 1u << index;
        struct token token = parser_next(parser);
        if (token.kind == TOKEN_ASSIGN && !assigned)
                token = parser_next(parser);
        if (token.kind == TOKEN_LIST_OPEN && value_is_list(row->kind))
                return parse_list(parser, row, frame->base) && parse_value_end(parser);
        if (token.kind != TOKEN_WORD)
                return unexpected(parser, &token, "a value");
        return value_store(parser, row, frame->base, &token) && parse_value_end(parser);
}

static void *frame_open_root(struct parser *parser, const struct token *name)
{
        (void)name;
        return parser->topology;
}

static void *frame_open_timing(struct parser *parser, const struct token *name)
{
        (void)name;
        return &parser->topology->timing;
}

static void *frame_open_soa(struct parser *parser, const struct token *name)
{
        (void)name;
        return parser_top(parser)->base;
}

static void *frame_open_postgres(struct parser *parser, const struct token *name)
{
        (void)name;
        parser->topology->postgres.automatic = true;
        return &parser->topology->postgres;
}

static void *full(struct parser *parser, const struct token *name, size_t max, const char *what)
{
        (void)FAIL(parser, name, "remove some", "more than %zu %s", max, what);
        return NULL;
}

static void *frame_open_region(struct parser *parser, const struct token *name)
{
        struct topology *topology = parser->topology;
        if (!name_valid(name->text)) {
                (void)FAIL(parser, name, "use 1 to 31 of a-z, 0-9 and '-'", "'%.*s' is not a name",
                           SHOWN(name));
                return NULL;
        }
        if (topology_region_by_name(topology, name->text) != NULL) {
                (void)FAIL(parser, name, "give each region a name of its own",
                           "the region %.*s is described twice", SHOWN(name));
                return NULL;
        }
        if (topology->region_count == TOPOLOGY_REGIONS_MAX)
                return full(parser, name, TOPOLOGY_REGIONS_MAX, "regions");
        struct topology_region *region = &topology->regions[topology->region_count++];
        text_copy(region->name, sizeof region->name, name->text);
        return region;
}

static void *frame_open_node(struct parser *parser, const struct token *name)
{
        struct topology_region *region = parser_top(parser)->base;
        if (!name_valid(name->text)) {
                (void)FAIL(parser, name, "use 1 to 31 of a-z, 0-9 and '-'", "'%.*s' is not a name",
                           SHOWN(name));
                return NULL;
        }
        if (topology_node_by_name(parser->topology, name->text) != NULL) {
                (void)FAIL(parser, name, "give each node of the cluster a name of its own",
                           "the node %.*s is described twice", SHOWN(name));
                return NULL;
        }
        if (region->node_count == TOPOLOGY_REGION_NODES_MAX)
                return full(parser, name, TOPOLOGY_REGION_NODES_MAX, "nodes in a region");
        struct topology_node *node = &region->nodes[region->node_count++];
        text_copy(node->name, sizeof node->name, name->text);
        return node;
}

static void *frame_open_zone(struct parser *parser, const struct token *name)
{
        struct topology *topology = parser->topology;
        if (topology->zone_count == TOPOLOGY_ZONES_MAX)
                return full(parser, name, TOPOLOGY_ZONES_MAX, "zones");
        struct topology_zone *zone = &topology->zones[topology->zone_count];
        if (!domain_copy(name->text, zone->name, sizeof zone->name)) {
                (void)FAIL(parser, name, "give a name such as example.test",
                           "'%.*s' is not a domain name", SHOWN(name));
                return NULL;
        }
        for (uint32_t i = 0; i < topology->zone_count; i++) {
                if (strcmp(topology->zones[i].name, zone->name) == 0) {
                        (void)FAIL(parser, name, "describe each zone once",
                                   "the zone %s is described twice", zone->name);
                        return NULL;
                }
        }
        topology->zone_count++;
        return zone;
}

static void *frame_open_name(struct parser *parser, const struct token *token)
{
        struct topology *topology = parser->topology;
        if (topology->name_count == TOPOLOGY_NAMES_MAX)
                return full(parser, token, TOPOLOGY_NAMES_MAX, "names");
        struct topology_name *name = &topology->names[topology->name_count];
        if (bytes_equal(token->text, BYTES("@"))) {
                text_copy(name->label, sizeof name->label, token->text);
        } else if (!domain_copy(token->text, name->label, sizeof name->label)) {
                (void)FAIL(parser, token, "give a name relative to the zone, such as www, or @",
                           "'%.*s' is not a name in a zone", SHOWN(token));
                return NULL;
        }
        name->zone = (uint8_t)(topology->zone_count - 1);
        for (uint32_t i = 0; i < topology->name_count; i++) {
                if (topology->names[i].zone == name->zone &&
                    strcmp(topology->names[i].label, name->label) == 0) {
                        (void)FAIL(parser, token, "describe each name once",
                                   "the name %s is described twice", name->label);
                        return NULL;
                }
        }
        topology->name_count++;
        return name;
}

static void *(*const openers[SECTION_COUNT])(struct parser *parser, const struct token *name) = {
        [SECTION_ROOT] = frame_open_root,         [SECTION_TIMING] = frame_open_timing,
        [SECTION_REGION] = frame_open_region,     [SECTION_NODE] = frame_open_node,
        [SECTION_ZONE] = frame_open_zone,         [SECTION_SOA] = frame_open_soa,
        [SECTION_NAME] = frame_open_name,         [SECTION_DATA] = frame_open_data,
        [SECTION_FUNCTION] = frame_open_function, [SECTION_POSTGRES] = frame_open_postgres,
};

/* Fills in what a number is when its key is missing. */
static void frame_defaults(struct frame *frame)
{
        for (size_t i = 0; i < frame->row->field_count; i++) {
                const struct field_row *row = &frame->row->fields[i];
                if (row->high != 0 && !row->required && row->absent >= 0)
                        value_put_number(row, frame->base, row->absent);
        }
}

static bool frame_push(struct parser *parser, enum section_kind kind, const struct token *key,
                       const struct token *name)
{
        void *base = openers[kind](parser, name);
        if (base == NULL)
                return false;
        CHECK(parser->depth < COUNT_OF(parser->frames));
        struct frame *frame = &parser->frames[parser->depth++];
        *frame = (struct frame){
                .row = &section_rows[kind],
                .kind = kind,
                .base = base,
                .line = key->line,
                .column = key->column,
                .name = section_rows[kind].named ? name->text : bytes_of(NULL, 0),
        };
        frame_defaults(frame);
        return true;
}

/* The child section of that key, or SECTION_COUNT. */
static enum section_kind section_of(const struct frame *frame, struct bytes key)
{
        for (unsigned i = 1; i < SECTION_COUNT; i++) {
                if (section_rows[i].parent == frame->kind &&
                    bytes_equal(key, bytes_of_str(section_rows[i].key)))
                        return (enum section_kind)i;
        }
        return SECTION_COUNT;
}

static bool parse_section(struct parser *parser, enum section_kind kind, const struct token *key,
                          bool assigned)
{
        struct frame *frame = parser_top(parser);
        const struct section_row *row = &section_rows[kind];
        uint32_t bit = 1u << (16 + kind);
        if (!row->named && (frame->seen & bit) != 0)
                return FAIL(parser, key, "keep one of them", "'%s' is given twice", row->key);
        frame->seen |= bit;
        struct token name = *key;
        struct token token = parser_next(parser);
        if (token.kind == TOKEN_ASSIGN && !row->named && !assigned)
                token = parser_next(parser);
        if (row->named) {
                if (token.kind != TOKEN_WORD)
                        return unexpected(parser, &token, "a name");
                name = token;
                token = parser_next(parser);
        }
        if (token.kind != TOKEN_OPEN)
                return unexpected(parser, &token, "{");
        return frame_push(parser, kind, key, &name);
}

static bool frame_pop(struct parser *parser)
{
        struct frame *frame = parser_top(parser);
        for (size_t i = 0; i < frame->row->field_count; i++) {
                const struct field_row *row = &frame->row->fields[i];
                if (row->required && (frame->seen & (1u << i)) == 0)
                        return fail_at(parser, frame->line, frame->column, "add it",
                                       "the key '%s' is missing", row->key);
        }
        if (!check_section(parser, frame))
                return false;
        parser->depth--;
        return true;
}

static bool parse_entry(struct parser *parser, const struct token *token)
{
        parser->key = token->text;
        bool assigned = token->text.len > 1 && !token->quoted &&
                        token->text.ptr[token->text.len - 1] == ':';
        if (assigned)
                parser->key.len--;
        enum section_kind kind = section_of(parser_top(parser), parser->key);
        bool good = kind == SECTION_COUNT ? parse_value(parser, token, assigned)
                                          : parse_section(parser, kind, token, assigned);
        parser->key = bytes_of(NULL, 0);
        return good;
}

static bool parse_document(struct parser *parser)
{
        for (;;) {
                struct token token = parser_next(parser);
                switch (token.kind) {
                case TOKEN_SEPARATOR:
                        continue;
                case TOKEN_WORD:
                        if (!parse_entry(parser, &token))
                                return false;
                        continue;
                case TOKEN_CLOSE:
                        if (parser->depth == 1)
                                return FAIL(parser, &token, "remove it, or open what it closes",
                                            "a } closes nothing");
                        if (!frame_pop(parser))
                                return false;
                        continue;
                case TOKEN_END:
                        if (parser->depth > 1)
                                return fail_at(parser, parser_top(parser)->line,
                                               parser_top(parser)->column, "add the missing }",
                                               "the section has no end");
                        return frame_pop(parser);
                case TOKEN_OPEN:
                case TOKEN_LIST_OPEN:
                case TOKEN_LIST_CLOSE:
                case TOKEN_ASSIGN:
                case TOKEN_BAD:
                        return unexpected(parser, &token, "a key");
                }
        }
}

bool topology_parse(struct bytes text, struct topology *ret, struct topology_error *ret_error)
{
        memset(ret, 0, sizeof *ret);
        struct parser parser = {.topology = ret, .error = ret_error};
        struct token origin = {.line = 1, .column = 1};
        if (text.len > TOPOLOGY_BYTES_MAX)
                return fail_at(&parser, 1, 1, "describe the cluster in less",
                               "the document has %zu bytes, more than %d", text.len,
                               TOPOLOGY_BYTES_MAX);
        lexer_init(&parser.lexer, text);
        if (!frame_push(&parser, SECTION_ROOT, &origin, &origin))
                return false;
        ret->timing = timing_default();
        if (parse_document(&parser))
                return true;
        memset(ret, 0, sizeof *ret);
        return false;
}

struct topology_timing timing_default(void)
{
        struct topology_timing timing = {0};
        struct frame frame = {.row = &section_rows[SECTION_TIMING], .base = &timing};
        frame_defaults(&frame);
        return timing;
}
