/* topology_priv.h - what the files of this room share: the schema as tables. Parser,
 * writer and diff all run over the same rows, so a key exists in all of them or in none. */
#ifndef MERIDIAN_TOPOLOGY_TOPOLOGY_PRIV_H
#define MERIDIAN_TOPOLOGY_TOPOLOGY_PRIV_H

#include "base/lexer.h"
#include "topology/topology.h"

/* schema.c */

enum field_kind {
        FIELD_NAME,   /* char[TOPOLOGY_NAME_SIZE]: [a-z0-9-]{1,31} */
        FIELD_DOMAIN, /* char[TOPOLOGY_DOMAIN_SIZE] */
        FIELD_CODE,   /* char[3]: two capitals */
        FIELD_U8,
        FIELD_U32,
        FIELD_U64,
        FIELD_I32,
        FIELD_DEGREES,   /* int32_t, in millionths */
        FIELD_SECONDS,   /* uint32_t */
        FIELD_MILLIS,    /* uint32_t */
        FIELD_ROLE,      /* enum topology_role */
        FIELD_POLICY,    /* enum topology_policy */
        FIELD_A,         /* struct topology_address[], IPv4 */
        FIELD_AAAA,      /* the same, IPv6 */
        FIELD_ENDPOINT,  /* struct topology_endpoint */
        FIELD_ENDPOINTS, /* struct topology_endpoint[] */
        FIELD_REGION,    /* one region's name, into `order` of a name */
        FIELD_REGIONS,   /* many of them */
        FIELD_CONFLICT,  /* enum topology_conflict */
        FIELD_FUNCTION,  /* char[TOPOLOGY_NAME_SIZE]: a function's name, or empty */
        FIELD_TEXT,      /* char[TOPOLOGY_FUNCTION_SIZE]: many lines */
        FIELD_SWITCH,    /* bool: on or off */
        FIELD_NODE,      /* one node's name, as a list of ids that has one */
        FIELD_NODES,     /* uint32_t[]: ids of nodes, by their names */
};

struct field_row {
        const char *key;
        enum field_kind kind;
        bool required;
        size_t offset;       /* in the struct of the section */
        size_t offset_count; /* of lists: of their uint32_t count */
        size_t max;          /* of lists */
        int64_t low, high;   /* of numbers, in their stored unit */
        int64_t absent;      /* of numbers: the value where the key is missing */
        bool quiet; /* of numbers and switches: 0 and off are not written, so that builds which do
                     * not know the key can read a document that does not use it */
};

enum section_kind {
        SECTION_ROOT,
        SECTION_TIMING,
        SECTION_REGION,
        SECTION_NODE,
        SECTION_ZONE,
        SECTION_SOA,
        SECTION_NAME,
        SECTION_DATA,
        SECTION_FUNCTION,
        SECTION_POSTGRES,
        SECTION_COUNT,
};

struct section_row {
        const char *key;
        enum section_kind parent;
        bool named;
        const struct field_row *fields;
        size_t field_count;
};

extern const struct section_row section_rows[SECTION_COUNT];

/* Where in its struct a section's field lies. */
static inline void *field_at(const struct field_row *row, void *base)
{
        return (uint8_t *)base + row->offset;
}

static inline const void *field_of(const struct field_row *row, const void *base)
{
        return (const uint8_t *)base + row->offset;
}

static inline uint32_t field_count_of(const struct field_row *row, const void *base)
{
        uint32_t count;
        memcpy(&count, (const uint8_t *)base + row->offset_count, sizeof count);
        return count;
}

/* The key's row of a section, with its position, or NULL. */
const struct field_row *section_field(const struct section_row *section, struct bytes key,
                                      size_t *ret_index);

/* Copies text with a NUL into a char array of `size`; what does not fit is cut. */
void text_copy(char *to, size_t size, struct bytes text);

#endif
