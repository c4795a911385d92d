/* parse_priv.h - the parser's state, shared by parse.c (syntax), value.c (single values) and
 * check.c (what values mean together). */
#ifndef MERIDIAN_TOPOLOGY_PARSE_PRIV_H
#define MERIDIAN_TOPOLOGY_PARSE_PRIV_H

#include "base/check.h"
#include "topology/topology_priv.h"

/* An open section. */
struct frame {
        const struct section_row *row;
        enum section_kind kind;
        void *base;    /* the struct that it fills */
        uint32_t seen; /* bit i: field i; bit 16 + kind: a child section of that kind */
        uint32_t line;
        uint32_t column;
        struct bytes name;
};

/* A node that the postgres section names: it may be described later. */
struct node_mention {
        struct token token;
        uint32_t *id; /* where its id belongs */
};

struct parser {
        struct lexer lexer;
        bool peeked;
        struct token token; /* the one peeked at */
        struct topology *topology;
        struct topology_error *error;
        size_t depth;
        struct frame frames[3];
        struct bytes key; /* being read, for the place of a fault */
        uint32_t mention_count;
        struct token mentions[TOPOLOGY_REGIONS_MAX + 1]; /* region names as first referred to */
        struct token functions[TOPOLOGY_DATA_MAX];       /* the function that data[i] refers to */
        uint32_t node_count;
        struct node_mention nodes[2 * TOPOLOGY_POSTGRES_NODES_MAX + 1];
};

/* Writes the error with the place of the open sections. Returns false. */
bool fail_at(struct parser *parser, uint32_t line, uint32_t column, const char *todo,
             const char *format, ...) PRINTF_LIKE(5, 6);

#define FAIL(parser, token, todo, ...)                                                             \
        fail_at((parser), (token)->line, (token)->column, (todo), __VA_ARGS__)

/* The text of a token for a message, cut: arguments of "%.*s". */
#define SHOWN(token) (int)((token)->text.len < 64 ? (token)->text.len : 64), (token)->text.ptr

bool name_valid(struct bytes text);

/* value.c: stores one value, or one element of a list, in the field of `row`. False: it does not
 * fit, and the error says so. */
bool value_store(struct parser *parser, const struct field_row *row, void *base,
                 const struct token *token);
bool value_is_list(enum field_kind kind);
void value_put_number(const struct field_row *row, void *base, int64_t value);

/* data.c: policies of key prefixes and merge functions. The openers return the struct that the
 * section fills, or NULL with the error. */
bool store_conflict(struct parser *parser, const struct field_row *row, void *base,
                    const struct token *token);
bool store_function(struct parser *parser, const struct field_row *row, void *base,
                    const struct token *token);
bool store_lines(struct parser *parser, const struct field_row *row, void *base,
                 const struct token *token);
void *frame_open_data(struct parser *parser, const struct token *prefix);
void *frame_open_function(struct parser *parser, const struct token *name);
bool check_data(struct parser *parser, const struct frame *frame);
bool check_functions(struct parser *parser);

/* postgres.c */
bool store_switch(struct parser *parser, const struct field_row *row, void *base,
                  const struct token *token);
bool store_node(struct parser *parser, const struct field_row *row, void *base,
                const struct token *token);
bool check_postgres(struct parser *parser, const struct frame *frame);
bool check_postgres_nodes(struct parser *parser);

/* value.c: the count of a list and one more, where there is room; else the error. */
bool list_grow(struct parser *parser, const struct field_row *row, void *base,
               const struct token *token, uint32_t *ret_index);
bool endpoint_equal(const struct topology_endpoint *a, const struct topology_endpoint *b);

/* Copies a domain name in lower case without the dot at its end. False: it is not one. */
bool domain_copy(struct bytes text, char *to, size_t size);

/* The timing of a document that gives none. */
struct topology_timing timing_default(void);

/* check.c: the rules of a section at its end; the root's are those of the whole document. */
bool check_section(struct parser *parser, const struct frame *frame);

#endif
