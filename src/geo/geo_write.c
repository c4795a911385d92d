/* geo_write.c - the MaxMind DB file format, version 2.0, written.
 *
 *   search tree    node_count nodes of two 32-bit big-endian records: < node_count: the next node;
 *                  == node_count: nothing known; else node_count + 16 + offset in the data section
 *   16 zero bytes
 *   data section   one map for each network
 *   metadata       the marker, then one map
 *
 * A network is put into the tree by descending its bits; a leaf on the way is pushed down to
 * both sides. Networks go in from short to long, so an inner one replaces what it covers. It
 * fails only for fields out of range, for the same network twice and when memory runs out;
 * `out` may then hold a part. */
#include "geo/geo_write.h"

#include "base/check.h"

#include <stdlib.h>

#define RECORD_EMPTY UINT32_MAX
#define RECORD_DATA  0x80000000u /* with the index of the network */
#define NODES_MAX    0x40000000u
#define BITS_V6      128u
#define BITS_V4_SKIP 96u

enum data_type {
        DATA_STRING = 2,
        DATA_DOUBLE = 3,
        DATA_U16 = 5,
        DATA_U32 = 6,
        DATA_MAP = 7,
        DATA_U64 = 9,
        DATA_ARRAY = 11,
};

struct node {
        uint32_t records[2];
};

struct tree {
        struct heap *heap;
        struct node *nodes;
        size_t count;
        size_t size;
};

/* A network as the tree sees it. */
struct leaf {
        uint8_t ip[16];
        uint8_t prefix_len;
        uint32_t index;
};

static void put_big(struct buffer *out, uint64_t value, unsigned bytes)
{
        while (bytes-- > 0)
                buffer_u8(out, (uint8_t)(value >> (8 * bytes)));
}

/* Sizes of all that is written here stay below 285. */
static void put_control(struct buffer *out, enum data_type type, size_t size)
{
        CHECK(size < 285);
        unsigned low = size < 29 ? (unsigned)size : 29u;
        if (type > 7) {
                buffer_u8(out, (uint8_t)low);
                buffer_u8(out, (uint8_t)(type - 7));
        } else {
                buffer_u8(out, (uint8_t)((unsigned)type << 5 | low));
        }
        if (low == 29)
                buffer_u8(out, (uint8_t)(size - 29));
}

static void put_string(struct buffer *out, struct bytes text)
{
        put_control(out, DATA_STRING, text.len);
        buffer_bytes(out, text);
}

static void put_double(struct buffer *out, double value)
{
        uint64_t bits;
        memcpy(&bits, &value, sizeof bits);
        put_control(out, DATA_DOUBLE, 8);
        put_big(out, bits, 8);
}

static void put_number(struct buffer *out, enum data_type type, uint64_t value)
{
        unsigned bytes = type == DATA_U16 ? 2 : type == DATA_U32 ? 4 : 8;
        put_control(out, type, bytes);
        put_big(out, value, bytes);
}

static void put_network(struct buffer *out, const struct geo_network *network)
{
        size_t keys = 1u + (network->country.len > 0) + (network->city.len > 0);
        put_control(out, DATA_MAP, keys);
        if (network->city.len > 0) {
                put_string(out, BYTES("city"));
                put_control(out, DATA_MAP, 1);
                put_string(out, BYTES("names"));
                put_control(out, DATA_MAP, 1);
                put_string(out, BYTES("en"));
                put_string(out, network->city);
        }
        if (network->country.len > 0) {
                put_string(out, BYTES("country"));
                put_control(out, DATA_MAP, 1);
                put_string(out, BYTES("iso_code"));
                put_string(out, network->country);
        }
        put_string(out, BYTES("location"));
        put_control(out, DATA_MAP, 2);
        put_string(out, BYTES("latitude"));
        put_double(out, network->latitude);
        put_string(out, BYTES("longitude"));
        put_double(out, network->longitude);
}

static void put_metadata(struct buffer *out, size_t node_count, uint64_t build_epoch)
{
        buffer_bytes(out, BYTES("\xab\xcd\xef"
                                "MaxMind.com"));
        put_control(out, DATA_MAP, 9);
        put_string(out, BYTES("binary_format_major_version"));
        put_number(out, DATA_U16, 2);
        put_string(out, BYTES("binary_format_minor_version"));
        put_number(out, DATA_U16, 0);
        put_string(out, BYTES("build_epoch"));
        put_number(out, DATA_U64, build_epoch);
        put_string(out, BYTES("database_type"));
        put_string(out, BYTES("Meridian-City"));
        put_string(out, BYTES("description"));
        put_control(out, DATA_MAP, 1);
        put_string(out, BYTES("en"));
        put_string(out, BYTES("Places of networks"));
        put_string(out, BYTES("ip_version"));
        put_number(out, DATA_U16, 6);
        put_string(out, BYTES("languages"));
        put_control(out, DATA_ARRAY, 1);
        put_string(out, BYTES("en"));
        put_string(out, BYTES("node_count"));
        put_number(out, DATA_U32, node_count);
        put_string(out, BYTES("record_size"));
        put_number(out, DATA_U16, 32);
}

static enum err node_new(struct tree *tree, uint32_t record, uint32_t *ret)
{
        if (tree->count == tree->size) {
                size_t size = tree->size == 0 ? 256 : tree->size * 2;
                if (size > NODES_MAX)
                        return ERR_LIMIT;
                struct node *nodes = heap_resize(tree->heap, tree->nodes, size * sizeof *nodes);
                if (nodes == NULL)
                        return ERR_NOMEM;
                tree->nodes = nodes;
                tree->size = size;
        }
        *ret = (uint32_t)tree->count;
        tree->nodes[tree->count++] = (struct node){{record, record}};
        return ERR_NONE;
}

static bool record_is_leaf(uint32_t record)
{
        return (record & RECORD_DATA) != 0;
}

static unsigned bit_at(const uint8_t *ip, unsigned bit)
{
        return (unsigned)ip[bit / 8] >> (7 - bit % 8) & 1u;
}

/* Descends to the record of the network's last bit, making nodes on the way. A prefix of length 0
 * is both records of the root. */
static enum err tree_insert(struct tree *tree, const struct leaf *leaf)
{
        uint32_t record = RECORD_DATA | leaf->index;
        if (leaf->prefix_len == 0) {
                tree->nodes[0] = (struct node){{record, record}};
                return ERR_NONE;
        }
        uint32_t at = 0;
        for (unsigned bit = 0; bit + 1 < leaf->prefix_len; bit++) {
                unsigned side = bit_at(leaf->ip, bit);
                uint32_t next = tree->nodes[at].records[side];
                if (record_is_leaf(next)) {
                        enum err err = node_new(tree, next, &next);
                        if (err != ERR_NONE)
                                return err;
                        tree->nodes[at].records[side] = next;
                }
                at = next;
        }
        tree->nodes[at].records[bit_at(leaf->ip, leaf->prefix_len - 1u)] = record;
        return ERR_NONE;
}

/* Short prefixes first, then by address. */
static int leaf_compare(const void *left, const void *right)
{
        const struct leaf *a = left;
        const struct leaf *b = right;
        if (a->prefix_len != b->prefix_len)
                return a->prefix_len < b->prefix_len ? -1 : 1;
        return memcmp(a->ip, b->ip, sizeof a->ip);
}

static enum err refuse(struct geo_write_error *error, size_t line, enum err err, const char *why)
{
        *error = (struct geo_write_error){line, why};
        return err;
}

static bool bits_clear_after(const struct geo_address *address, unsigned prefix_len, unsigned max)
{
        for (unsigned bit = prefix_len; bit < max; bit++) {
                if (bit_at(address->ip, bit) != 0)
                        return false;
        }
        return true;
}

/* Why a network cannot be written, or NULL. */
static const char *network_fault(const struct geo_network *network)
{
        if (network->address.family == GEO_FAMILY_NONE)
                return "not an IPv4 or IPv6 network";
        unsigned max = network->address.family == GEO_FAMILY_V4 ? 32 : 128;
        if (network->prefix_len > max)
                return "the prefix is longer than the address";
        if (!bits_clear_after(&network->address, network->prefix_len, max))
                return "the address has bits beyond its prefix";
        if (!(network->latitude >= -90 && network->latitude <= 90))
                return "the latitude is not within -90 and 90";
        if (!(network->longitude >= -180 && network->longitude <= 180))
                return "the longitude is not within -180 and 180";
        if (network->country.len != 0 && network->country.len != 2)
                return "the country is not a code of two letters";
        if (network->city.len > 255)
                return "the city's name is too long";
        return NULL;
}

static struct leaf leaf_of(const struct geo_network *network, size_t index)
{
        struct leaf leaf = {.index = (uint32_t)index};
        bool is_v4 = network->address.family == GEO_FAMILY_V4;
        leaf.prefix_len = (uint8_t)(network->prefix_len + (is_v4 ? BITS_V4_SKIP : 0u));
        if (is_v4)
                memcpy(leaf.ip + BITS_V4_SKIP / 8, network->address.ip, 4);
        else
                memcpy(leaf.ip, network->address.ip, 16);
        return leaf;
}

static enum err leaves_make(const struct geo_network *networks, size_t count, struct leaf *leaves,
                            struct geo_write_error *error)
{
        for (size_t i = 0; i < count; i++) {
                const char *fault = network_fault(&networks[i]);
                if (fault != NULL)
                        return refuse(error, i + 1, ERR_INVALID, fault);
                leaves[i] = leaf_of(&networks[i], i);
        }
        qsort(leaves, count, sizeof *leaves, leaf_compare);
        for (size_t i = 1; i < count; i++) {
                if (leaf_compare(&leaves[i - 1], &leaves[i]) != 0)
                        continue;
                uint32_t index = leaves[i - 1].index > leaves[i].index ? leaves[i - 1].index
                                                                       : leaves[i].index;
                return refuse(error, index + 1u, ERR_EXISTS, "the same network stands there twice");
        }
        return ERR_NONE;
}

static enum err tree_build(struct tree *tree, const struct leaf *leaves, size_t count)
{
        uint32_t root;
        enum err err = node_new(tree, RECORD_EMPTY, &root);
        for (size_t i = 0; i < count && err == ERR_NONE; i++)
                err = tree_insert(tree, &leaves[i]);
        return err;
}

static void put_tree(struct buffer *out, const struct tree *tree, const uint32_t *offsets)
{
        for (size_t i = 0; i < tree->count; i++) {
                for (unsigned side = 0; side < 2; side++) {
                        uint32_t record = tree->nodes[i].records[side];
                        uint64_t value = record;
                        if (record == RECORD_EMPTY)
                                value = tree->count;
                        else if (record_is_leaf(record))
                                value = tree->count + 16u + offsets[record & ~RECORD_DATA];
                        put_big(out, value, 4);
                }
        }
}

/* The data section is written first, aside, because the tree needs the offsets. */
static enum err put_all(struct buffer *out, const struct tree *tree,
                        const struct geo_network *networks, size_t count, uint32_t *offsets,
                        uint64_t build_epoch)
{
        struct buffer data;
        buffer_init(&data, tree->heap);
        for (size_t i = 0; i < count; i++) {
                offsets[i] = (uint32_t)data.len;
                put_network(&data, &networks[i]);
        }
        enum err err = data.err;
        if (err == ERR_NONE && data.len >= NODES_MAX)
                err = ERR_LIMIT;
        if (err == ERR_NONE) {
                static const uint8_t separator[16];
                put_tree(out, tree, offsets);
                buffer_bytes(out, bytes_of(separator, sizeof separator));
                buffer_bytes(out, buffer_view(&data));
                put_metadata(out, tree->count, build_epoch);
                err = out->err;
        }
        buffer_fini(&data);
        return err;
}

enum err geo_write(struct heap *heap, const struct geo_network *networks, size_t count,
                   uint64_t build_epoch, struct buffer *out, struct geo_write_error *error)
{
        *error = (struct geo_write_error){0, NULL};
        if (count >= NODES_MAX)
                return refuse(error, 0, ERR_LIMIT, "too many networks");
        struct tree tree = {.heap = heap};
        size_t room = count == 0 ? 1 : count;
        struct leaf *leaves = heap_alloc_array(heap, room, sizeof *leaves);
        uint32_t *offsets = heap_alloc_array(heap, room, sizeof *offsets);
        enum err err = leaves == NULL || offsets == NULL ? ERR_NOMEM : ERR_NONE;
        if (err == ERR_NONE)
                err = leaves_make(networks, count, leaves, error);
        if (err == ERR_NONE)
                err = tree_build(&tree, leaves, count);
        if (err == ERR_NONE)
                err = put_all(out, &tree, networks, count, offsets, build_epoch);
        if (err != ERR_NONE && error->why == NULL)
                error->why = err_text(err);
        heap_free(heap, tree.nodes);
        heap_free(heap, offsets);
        heap_free(heap, leaves);
        return err;
}

/* Takes the text up to `end` (or all) off `rest`. */
static struct bytes take_until(struct bytes *rest, uint8_t end)
{
        const uint8_t *found = rest->len == 0 ? NULL : memchr(rest->ptr, end, rest->len);
        size_t len = found == NULL ? rest->len : (size_t)(found - rest->ptr);
        struct bytes taken = bytes_of(rest->ptr, len);
        size_t skip = found == NULL ? len : len + 1;
        rest->len -= skip;
        if (rest->len > 0)
                rest->ptr += skip;
        return taken;
}

static struct bytes trim(struct bytes text)
{
        static const uint8_t blanks[] = {' ', '\t', '\r'};
        while (text.len > 0 && (text.ptr[0] == ' ' || text.ptr[0] == '\t'))
                text = bytes_of(text.ptr + 1, text.len - 1);
        while (text.len > 0 && memchr(blanks, text.ptr[text.len - 1], sizeof blanks) != NULL)
                text.len--;
        return text;
}

static bool text_copy(struct bytes text, char *ret, size_t size)
{
        if (text.len == 0 || text.len >= size || memchr(text.ptr, 0, text.len) != NULL)
                return false;
        memcpy(ret, text.ptr, text.len);
        ret[text.len] = '\0';
        return true;
}

static bool number_parse(struct bytes text, double *ret)
{
        char copy[32];
        char *end;
        if (!text_copy(text, copy, sizeof copy) || strspn(copy, "+-.0123456789") != text.len)
                return false;
        *ret = strtod(copy, &end);
        return *end == '\0';
}

static bool prefix_parse(struct bytes text, uint8_t *ret)
{
        unsigned value = 0;
        if (text.len == 0 || text.len > 3)
                return false;
        for (size_t i = 0; i < text.len; i++) {
                if (text.ptr[i] < '0' || text.ptr[i] > '9')
                        return false;
                value = value * 10 + (unsigned)(text.ptr[i] - '0');
        }
        *ret = (uint8_t)value;
        return value <= BITS_V6;
}

static bool network_parse(struct bytes text, struct geo_network *network)
{
        char copy[64];
        struct bytes address = take_until(&text, '/');
        return text_copy(address, copy, sizeof copy) &&
               geo_address_parse(copy, &network->address) &&
               prefix_parse(text, &network->prefix_len);
}

/* Why a line is not a network, or NULL. */
static const char *line_parse(struct bytes line, struct geo_network *network)
{
        struct bytes fields[5];
        size_t commas = 0;
        for (size_t i = 0; i < line.len; i++)
                commas += line.ptr[i] == ',';
        if (commas + 1 != COUNT_OF(fields))
                return "a line is network,country,city,latitude,longitude";
        for (size_t i = 0; i < COUNT_OF(fields); i++)
                fields[i] = trim(take_until(&line, ','));
        network->country = fields[1];
        network->city = fields[2];
        if (!network_parse(fields[0], network))
                return "the network is not address/length";
        if (!number_parse(fields[3], &network->latitude))
                return "the latitude is not a number";
        if (!number_parse(fields[4], &network->longitude))
                return "the longitude is not a number";
        return NULL;
}

static bool line_is_skipped(struct bytes line)
{
        return line.len == 0 || line.ptr[0] == '#' || bytes_starts_with(line, BYTES("network,"));
}

/* Reads all networks; lines[i] is where networks[i] stands. */
static enum err csv_parse(struct bytes csv, struct geo_network *networks, size_t *lines,
                          size_t *ret_count, struct geo_write_error *error)
{
        size_t count = 0;
        for (size_t number = 1; csv.len > 0; number++) {
                struct bytes line = trim(take_until(&csv, '\n'));
                if (line_is_skipped(line))
                        continue;
                const char *fault = line_parse(line, &networks[count]);
                if (fault != NULL)
                        return refuse(error, number, ERR_MALFORMED, fault);
                lines[count++] = number;
        }
        *ret_count = count;
        return ERR_NONE;
}

enum err geo_write_csv(struct heap *heap, struct bytes csv, uint64_t build_epoch,
                       struct buffer *out, struct geo_write_error *error)
{
        *error = (struct geo_write_error){0, NULL};
        size_t line_count = 1;
        for (size_t i = 0; i < csv.len; i++)
                line_count += csv.ptr[i] == '\n';
        struct geo_network *networks = heap_alloc_array(heap, line_count, sizeof *networks);
        size_t *lines = heap_alloc_array(heap, line_count, sizeof *lines);
        size_t count = 0;
        enum err err = networks == NULL || lines == NULL ? ERR_NOMEM : ERR_NONE;
        if (err == ERR_NONE)
                err = csv_parse(csv, networks, lines, &count, error);
        if (err == ERR_NONE) {
                err = geo_write(heap, networks, count, build_epoch, out, error);
                if (error->line > 0)
                        error->line = lines[error->line - 1];
        }
        if (err != ERR_NONE && error->why == NULL)
                error->why = err_text(err);
        heap_free(heap, lines);
        heap_free(heap, networks);
        return err;
}
