/* What stands behind a key: numbers, times, names, addresses, references to regions, each by the
 * kind of its field. A value that does not fit is refused with what would. */
#include "topology/parse_priv.h"

#include <stdio.h>

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

void value_put_number(const struct field_row *row, void *base, int64_t value)
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
        value_put_number(row, base, value);
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
        value_put_number(row, base, value);
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

bool value_is_list(enum field_kind kind)
{
        return kinds[kind].list;
}

bool value_store(struct parser *parser, const struct field_row *row, void *base,
                 const struct token *token)
{
        return kinds[row->kind].store(parser, row, base, token);
}
