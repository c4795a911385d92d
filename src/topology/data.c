/* Policies of key prefixes and the merge functions that they name: their values, and what these
 * mean together. A policy may name a function that comes later, so the name is looked up at the end
 * of the document. Fails as the rest of the parser does: with the place, the reason, what to do. */
#include "topology/parse_priv.h"

bool store_conflict(struct parser *parser, const struct field_row *row, void *base,
                    const struct token *token)
{
        (void)row;
        for (unsigned i = 0; i < TOPOLOGY_CONFLICT_COUNT; i++) {
                enum topology_conflict conflict = (enum topology_conflict)i;
                if (!bytes_equal(token->text, bytes_of_str(topology_conflict_name(conflict))))
                        continue;
                ((struct topology_data *)base)->conflict = conflict;
                return true;
        }
        return FAIL(parser, token, "use typed, last-write, siblings or merge",
                    "'%.*s' is not a conflict policy", SHOWN(token));
}

bool store_function(struct parser *parser, const struct field_row *row, void *base,
                    const struct token *token)
{
        struct topology *topology = parser->topology;
        if (!name_valid(token->text))
                return FAIL(parser, token, "use 1 to 31 of a-z, 0-9 and '-'",
                            "'%.*s' is not a name", SHOWN(token));
        text_copy(field_at(row, base), TOPOLOGY_NAME_SIZE, token->text);
        parser->functions[(struct topology_data *)base - topology->data] = *token;
        return true;
}

bool store_lines(struct parser *parser, const struct field_row *row, void *base,
                 const struct token *token)
{
        if (token->text.len == 0)
                return FAIL(parser, token, "give its text between triple quotes",
                            "the function has no text");
        if (token->text.len >= TOPOLOGY_FUNCTION_SIZE)
                return FAIL(parser, token, "shorten it", "the text has %zu bytes, more than %d",
                            token->text.len, TOPOLOGY_FUNCTION_SIZE - 1);
        text_copy(field_at(row, base), TOPOLOGY_FUNCTION_SIZE, token->text);
        return true;
}

static bool prefix_valid(struct bytes text)
{
        if (text.len >= TOPOLOGY_PREFIX_SIZE)
                return false;
        for (size_t i = 0; i < text.len; i++) {
                if (text.ptr[i] < ' ' || text.ptr[i] > '~' || strchr("\"'\\", text.ptr[i]) != NULL)
                        return false;
        }
        return true;
}

void *frame_open_data(struct parser *parser, const struct token *prefix)
{
        struct topology *topology = parser->topology;
        if (!prefix_valid(prefix->text)) {
                (void)FAIL(parser, prefix, "use at most 63 printable characters without quotes",
                           "'%.*s' is not a prefix of keys", SHOWN(prefix));
                return NULL;
        }
        for (uint32_t i = 0; i < topology->data_count; i++) {
                if (bytes_equal(prefix->text, bytes_of_str(topology->data[i].prefix))) {
                        (void)FAIL(parser, prefix, "describe each prefix once",
                                   "the prefix '%.*s' is described twice", SHOWN(prefix));
                        return NULL;
                }
        }
        if (topology->data_count == TOPOLOGY_DATA_MAX) {
                (void)FAIL(parser, prefix, "remove some", "more than %d prefixes",
                           TOPOLOGY_DATA_MAX);
                return NULL;
        }
        struct topology_data *data = &topology->data[topology->data_count++];
        text_copy(data->prefix, sizeof data->prefix, prefix->text);
        return data;
}

void *frame_open_function(struct parser *parser, const struct token *name)
{
        struct topology *topology = parser->topology;
        if (!name_valid(name->text)) {
                (void)FAIL(parser, name, "use 1 to 31 of a-z, 0-9 and '-'", "'%.*s' is not a name",
                           SHOWN(name));
                return NULL;
        }
        if (topology_function_of(topology, name->text) != NULL) {
                (void)FAIL(parser, name, "give each function a name of its own",
                           "the function %.*s is described twice", SHOWN(name));
                return NULL;
        }
        if (topology->function_count == TOPOLOGY_FUNCTIONS_MAX) {
                (void)FAIL(parser, name, "remove some", "more than %d functions",
                           TOPOLOGY_FUNCTIONS_MAX);
                return NULL;
        }
        struct topology_function *function = &topology->functions[topology->function_count++];
        text_copy(function->name, sizeof function->name, name->text);
        return function;
}

bool check_data(struct parser *parser, const struct frame *frame)
{
        const struct topology_data *data = frame->base;
        bool merges = data->conflict == TOPOLOGY_CONFLICT_MERGE;
        bool named = data->function[0] != 0;
        if (merges && !named)
                return fail_at(parser, frame->line, frame->column, "add function = NAME", "%s",
                               "the policy merge has no function");
        if (named && !merges)
                return fail_at(parser, frame->line, frame->column,
                               "remove it, or make the policy merge", "%s",
                               "a function is named, but the policy is not merge");
        return true;
}

bool check_functions(struct parser *parser)
{
        const struct topology *topology = parser->topology;
        for (uint32_t i = 0; i < topology->data_count; i++) {
                const char *name = topology->data[i].function;
                const struct token *token = &parser->functions[i];
                if (name[0] != 0 && topology_function_of(topology, bytes_of_str(name)) == NULL)
                        return FAIL(parser, token, "add: function NAME { text = ...; }",
                                    "there is no function '%s'", name);
        }
        return true;
}
