/* The parser: tokens to the fixed struct, driven by the schema's rows. Open sections are frames on
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

#define FAIL(parser, token, todo, ...)                                                             \
        fail_at((parser), (token)->line, (token)->column, (todo), __VA_ARGS__)

/* The text of a token for a message, cut: arguments of "%.*s". */
#define SHOWN(token) (int)((token)->text.len < 64 ? (token)->text.len : 64), (token)->text.ptr

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

/* Numbers */

static size_t digits_read(struct bytes text, size_t at, int64_t *value, bool *ret_overflow)
{
        size_t begin = at;
        for (; at < text.len && text.ptr[at] >= '0' && text.ptr[at] <= '9'; at++) {
                if (__builtin_mul_overflow(*value, 10, value) ||
                    __builtin_add_overflow(*value, text.ptr[at] - '0', value))
                        *ret_overflow = true;
        }
        return at - begin;
}

/* Reads "-12.5" as a whole number of 10^-scale. Returns how many bytes it took, 0 for no number.
 * Digits beyond the scale are a fault, not rounded away. */
static size_t decimal_read(struct bytes text, unsigned scale, int64_t *ret)
{
        int64_t value = 0;
        bool overflow = false;
        bool negative = text.len > 0 && text.ptr[0] == '-';
        size_t at = negative ? 1 : 0;
        size_t whole = digits_read(text, at, &value, &overflow);
        at += whole;
        size_t fraction = 0;
        if (scale > 0 && at + 1 < text.len && text.ptr[at] == '.') {
                fraction = digits_read(text, at + 1, &value, &overflow);
                if (fraction == 0)
                        return 0;
                at += 1 + fraction;
        }
        if (whole == 0 || fraction > scale)
                return 0;
        for (size_t i = fraction; i < scale; i++)
                overflow |= __builtin_mul_overflow(value, 10, &value);
        *ret = negative ? -value : value;
        return overflow ? 0 : at;
}

static bool decimal_parse(struct bytes text, unsigned scale, int64_t *ret)
{
        return text.len > 0 && decimal_read(text, scale, ret) == text.len;
}

/* "200ms", "1.5s", "2min", "1h", "1d"; without a unit: seconds. */
static bool duration_parse(struct bytes text, int64_t *ret_ms)
{
        static const struct {
                struct bytes unit;
                int64_t ms;
        } units[] = {
                {BYTES_INIT("ms"), 1},      {BYTES_INIT("s"), 1000},    {BYTES_INIT(""), 1000},
                {BYTES_INIT("min"), 60000}, {BYTES_INIT("h"), 3600000}, {BYTES_INIT("d"), 86400000},
        };
        int64_t thousandths, product;
        size_t used = decimal_read(text, 3, &thousandths);
        if (used == 0)
                return false;
        struct bytes unit = bytes_of(text.ptr + used, text.len - used);
        for (size_t i = 0; i < COUNT_OF(units); i++) {
                if (!bytes_equal(unit, units[i].unit))
                        continue;
                if (__builtin_mul_overflow(thousandths, units[i].ms, &product) ||
                    product % 1000 != 0)
                        return false;
                *ret_ms = product / 1000;
                return true;
        }
        return false;
}

static void number_put(const struct field_row *row, void *base, int64_t value)
{
        void *at = field_at(row, base);
        switch (row->kind) {
        case FIELD_U8:
                *(uint8_t *)at = (uint8_t)value;
                break;
        case FIELD_I32:
        case FIELD_DEGREES:
                memcpy(at, &(int32_t){(int32_t)value}, sizeof(int32_t));
                break;
        case FIELD_U64:
                memcpy(at, &(uint64_t){(uint64_t)value}, sizeof(uint64_t));
                break;
        case FIELD_U32:
        case FIELD_SECONDS:
        case FIELD_MILLIS:
                memcpy(at, &(uint32_t){(uint32_t)value}, sizeof(uint32_t));
                break;
        case FIELD_NAME:
        case FIELD_DOMAIN:
        case FIELD_CODE:
        case FIELD_ROLE:
        case FIELD_POLICY:
        case FIELD_A:
        case FIELD_AAAA:
        case FIELD_ENDPOINT:
        case FIELD_ENDPOINTS:
        case FIELD_REGION:
        case FIELD_REGIONS:
        case FIELD_CONFLICT:
        case FIELD_FUNCTION:
        case FIELD_TEXT:
        case FIELD_SWITCH:
        case FIELD_NODE:
        case FIELD_NODES:
                UNREACHABLE("not a number");
        }
}

/* Values: one function a kind */

static bool store_number(struct parser *parser, const struct field_row *row, void *base,
                         const struct token *token)
{
        int64_t value = 0;
        bool degrees = row->kind == FIELD_DEGREES;
        if (!decimal_parse(token->text, degrees ? 6 : 0, &value))
                return FAIL(parser, token,
                            degrees ? "give degrees with at most six decimals, such as 39.04"
                                    : "give a whole number",
                            "'%.*s' is not a number of this kind", SHOWN(token));
        if (value < row->low || value > row->high) {
                int64_t unit = degrees ? 1000000 : 1;
                return FAIL(parser, token, "correct the number",
                            "%.*s is out of range: %lld to %lld", SHOWN(token),
                            (long long)(row->low / unit), (long long)(row->high / unit));
        }
        number_put(row, base, value);
        return true;
}

static bool store_duration(struct parser *parser, const struct field_row *row, void *base,
                           const struct token *token)
{
        bool seconds = row->kind == FIELD_SECONDS;
        int64_t ms = 0;
        if (!duration_parse(token->text, &ms) || (seconds && ms % 1000 != 0))
                return FAIL(parser, token,
                            seconds ? "give whole seconds, such as 30 or 30s, or min, h, d"
                                    : "give a number and its unit: ms, s, min, h or d",
                            "'%.*s' is not a duration of this kind", SHOWN(token));
        int64_t value = seconds ? ms / 1000 : ms;
        if (value < row->low || value > row->high)
                return FAIL(parser, token, "correct the duration",
                            "%.*s is out of range: %lld to %lld %s", SHOWN(token),
                            (long long)row->low, (long long)row->high, seconds ? "s" : "ms");
        number_put(row, base, value);
        return true;
}

bool name_valid(struct bytes text)
{
        if (text.len == 0 || text.len >= TOPOLOGY_NAME_SIZE)
                return false;
        for (size_t i = 0; i < text.len; i++) {
                uint8_t byte = text.ptr[i];
                if (!((byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') || byte == '-'))
                        return false;
        }
        return true;
}

static bool label_byte(uint8_t byte)
{
        return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
               (byte >= '0' && byte <= '9') || byte == '-' || byte == '_';
}

bool domain_copy(struct bytes text, char *to, size_t size)
{
        if (text.len > 0 && text.ptr[text.len - 1] == '.')
                text.len--;
        if (text.len == 0 || text.len >= size || text.len > 253)
                return false;
        size_t label = 0;
        for (size_t i = 0; i < text.len; i++) {
                bool dot = text.ptr[i] == '.';
                if (dot ? label == 0 : !label_byte(text.ptr[i]))
                        return false;
                label = dot ? 0 : label + 1;
                if (label > 63)
                        return false;
        }
        if (label == 0)
                return false;
        text_copy(to, size, text);
        for (size_t i = 0; i < text.len; i++) {
                if (to[i] >= 'A' && to[i] <= 'Z')
                        to[i] = (char)(to[i] - 'A' + 'a');
        }
        return true;
}

static bool store_text(struct parser *parser, const struct field_row *row, void *base,
                       const struct token *token)
{
        char *to = field_at(row, base);
        if (row->kind == FIELD_NAME) {
                if (!name_valid(token->text))
                        return FAIL(parser, token, "use 1 to 31 of a-z, 0-9 and '-'",
                                    "'%.*s' is not a name", SHOWN(token));
                text_copy(to, TOPOLOGY_NAME_SIZE, token->text);
                return true;
        }
        if (row->kind == FIELD_DOMAIN) {
                if (!domain_copy(token->text, to, TOPOLOGY_DOMAIN_SIZE))
                        return FAIL(parser, token, "give a name such as ns1.example.test",
                                    "'%.*s' is not a domain name", SHOWN(token));
                return true;
        }
        bool letters = token->text.len == 2;
        for (size_t i = 0; i < token->text.len; i++)
                letters = letters && token->text.ptr[i] >= 'A' && token->text.ptr[i] <= 'Z';
        if (!letters)
                return FAIL(parser, token, "use two capitals, such as US or EU",
                            "'%.*s' is not a code of two letters", SHOWN(token));
        text_copy(to, 3, token->text);
        return true;
}

static bool store_choice(struct parser *parser, const struct field_row *row, void *base,
                         const struct token *token)
{
        bool role = row->kind == FIELD_ROLE;
        unsigned count = role ? (unsigned)TOPOLOGY_ROLE_COUNT : (unsigned)TOPOLOGY_POLICY_COUNT;
        for (unsigned i = 0; i < count; i++) {
                const char *name = role ? topology_role_name((enum topology_role)i)
                                        : topology_policy_name((enum topology_policy)i);
                if (!bytes_equal(token->text, bytes_of_str(name)))
                        continue;
                if (role)
                        ((struct topology_region *)base)->role = (enum topology_role)i;
                else
                        ((struct topology_name *)base)->policy = (enum topology_policy)i;
                return true;
        }
        return FAIL(parser, token, role ? "use data or witness" : "use nearest, region or failover",
                    "'%.*s' is not a %s", SHOWN(token), row->key);
}

static bool address_usable(const struct topology_address *address)
{
        static const uint8_t zero[16];
        uint8_t first = address->bytes[0];
        return memcmp(address->bytes, zero, sizeof zero) != 0 &&
               (address->family == 4 ? first != 0 && first < 224 : first != 0xff);
}

/* The count of a list, and one more if there is room; false with the error if not. */
bool list_grow(struct parser *parser, const struct field_row *row, void *base,
               const struct token *token, uint32_t *ret_index)
{
        uint32_t count = field_count_of(row, base);
        if (count >= row->max)
                return FAIL(parser, token, "remove some", "more than %zu entries", row->max);
        *ret_index = count++;
        memcpy((uint8_t *)base + row->offset_count, &count, sizeof count);
        return true;
}

static bool store_address(struct parser *parser, const struct field_row *row, void *base,
                          const struct token *token)
{
        struct topology_address address;
        unsigned family = row->kind == FIELD_A ? 4 : 6;
        if (!topology_address_parse(token->text, &address) || address.family != family ||
            !address_usable(&address))
                return FAIL(parser, token,
                            family == 4 ? "give a unicast address such as \"192.0.2.1\""
                                        : "give a unicast address such as \"2001:db8::1\"",
                            "'%.*s' is not an IPv%u address of a server", SHOWN(token), family);
        struct topology_address *list = field_at(row, base);
        for (uint32_t i = 0; i < field_count_of(row, base); i++) {
                if (memcmp(&list[i], &address, sizeof address) == 0)
                        return FAIL(parser, token, "name each address once", "%.*s is given twice",
                                    SHOWN(token));
        }
        uint32_t index = 0;
        if (!list_grow(parser, row, base, token, &index))
                return false;
        list[index] = address;
        return true;
}

static bool endpoint_of(struct parser *parser, const struct token *token,
                        struct topology_endpoint *ret)
{
        if (topology_endpoint_parse(token->text, ret) && address_usable(&ret->address))
                return true;
        return FAIL(parser, token,
                    "give a numeric address and a port of 1 to 65535, such as \"192.0.2.1:7401\" "
                    "or \"[2001:db8::1]:7401\"",
                    "'%.*s' is not an address with a port", SHOWN(token));
}

static bool store_endpoint(struct parser *parser, const struct field_row *row, void *base,
                           const struct token *token)
{
        return endpoint_of(parser, token, field_at(row, base));
}

bool endpoint_equal(const struct topology_endpoint *a, const struct topology_endpoint *b)
{
        return a->port == b->port && a->address.family == b->address.family &&
               memcmp(a->address.bytes, b->address.bytes, sizeof a->address.bytes) == 0;
}

static bool store_endpoints(struct parser *parser, const struct field_row *row, void *base,
                            const struct token *token)
{
        struct topology_endpoint endpoint;
        if (!endpoint_of(parser, token, &endpoint))
                return false;
        struct topology_endpoint *list = field_at(row, base);
        for (uint32_t i = 0; i < field_count_of(row, base); i++) {
                if (endpoint_equal(&list[i], &endpoint))
                        return FAIL(parser, token, "name each one once", "%.*s is given twice",
                                    SHOWN(token));
        }
        uint32_t index = 0;
        if (!list_grow(parser, row, base, token, &index))
                return false;
        list[index] = endpoint;
        return true;
}

/* The number of first mention of a region's name; false with the error when there are too many. */
static bool mention_of(struct parser *parser, const struct token *token, uint8_t *ret)
{
        for (uint32_t i = 0; i < parser->mention_count; i++) {
                if (bytes_equal(parser->mentions[i].text, token->text)) {
                        *ret = (uint8_t)i;
                        return true;
                }
        }
        if (parser->mention_count == COUNT_OF(parser->mentions))
                return FAIL(parser, token, "name only regions of this document",
                            "more regions are named than there may be");
        parser->mentions[parser->mention_count] = *token;
        *ret = (uint8_t)parser->mention_count++;
        return true;
}

static bool store_region(struct parser *parser, const struct field_row *row, void *base,
                         const struct token *token)
{
        uint8_t mention = 0;
        if (!mention_of(parser, token, &mention))
                return false;
        struct topology_name *name = base;
        for (uint32_t i = 0; i < name->order_count; i++) {
                if (name->order[i] == mention)
                        return FAIL(parser, token, "name each region once", "%.*s is given twice",
                                    SHOWN(token));
        }
        uint32_t index = 0;
        if (!list_grow(parser, row, base, token, &index))
                return false;
        name->order[index] = mention;
        return true;
}

static const struct {
        bool list;
        bool (*store)(struct parser *parser, const struct field_row *row, void *base,
                      const struct token *token);
} kinds[] = {
        [FIELD_NAME] = {false, store_text},         [FIELD_DOMAIN] = {false, store_text},
        [FIELD_CODE] = {false, store_text},         [FIELD_U8] = {false, store_number},
        [FIELD_U32] = {false, store_number},        [FIELD_U64] = {false, store_number},
        [FIELD_I32] = {false, store_number},        [FIELD_DEGREES] = {false, store_number},
        [FIELD_SECONDS] = {false, store_duration},  [FIELD_MILLIS] = {false, store_duration},
        [FIELD_ROLE] = {false, store_choice},       [FIELD_POLICY] = {false, store_choice},
        [FIELD_A] = {true, store_address},          [FIELD_AAAA] = {true, store_address},
        [FIELD_ENDPOINT] = {false, store_endpoint}, [FIELD_ENDPOINTS] = {true, store_endpoints},
        [FIELD_REGION] = {false, store_region},     [FIELD_REGIONS] = {true, store_region},
        [FIELD_CONFLICT] = {false, store_conflict}, [FIELD_FUNCTION] = {false, store_function},
        [FIELD_TEXT] = {false, store_lines},        [FIELD_SWITCH] = {false, store_switch},
        [FIELD_NODE] = {false, store_node},         [FIELD_NODES] = {true, store_node},
};

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
                if (!kinds[row->kind].store(parser, row, base, &token))
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
        if (token.kind == TOKEN_LIST_OPEN && kinds[row->kind].list)
                return parse_list(parser, row, frame->base) && parse_value_end(parser);
        if (token.kind != TOKEN_WORD)
                return unexpected(parser, &token, "a value");
        return kinds[row->kind].store(parser, row, frame->base, &token) && parse_value_end(parser);
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
                        number_put(row, frame->base, row->absent);
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
