/* verify_report.c - what `meridian verify` found: the keys that differ, each with what every region
 * has of it, and what is not known. Without memory JSON lacks what there was no room for. */
#include "meridian/verify_run.h"
#include "term/term.h"

#include <stdio.h>
#include <stdlib.h>

enum {
        SHOWN_MAX = 50, /* keys, to people: JSON has all */
};

static const char *type_name(unsigned type)
{
        static const char *const names[] = {"none", "string", "list",  "hash",
                                            "set",  "zset",   "other", "stream"};
        return type < COUNT_OF(names) ? names[type] : "other";
}

static json_t *digest_json(uint64_t digest)
{
        char text[24];
        snprintf(text, sizeof text, "%016llx", (unsigned long long)digest);
        return json_string(text);
}

static json_t *side_json(const struct region *region, const struct verify_side *side)
{
        if (!side->there)
                return json_pack("{s:s, s:b}", "region", region->name, "there", 0);
        return json_pack("{s:s, s:b, s:s, s:o, s:o, s:{s:I, s:i}}", "region", region->name, "there",
                         1, "type", type_name(side->type), "value", digest_json(side->value),
                         "metadata", digest_json(side->memory), "stamp", "clock",
                         (json_int_t)side->hlc, "region", (int)side->origin);
}

/* As text where it is some, with what is none as \xNN. */
static json_t *key_json(struct bytes key)
{
        char *text = malloc(key.len * 4 + 1);
        char *at = text;
        json_t *json = json_stringn((const char *)key.ptr, key.len);
        for (size_t i = 0; json == NULL && text != NULL && i < key.len; i++) {
                bool plain = key.ptr[i] >= ' ' && key.ptr[i] < 0x7f;
                at += snprintf(at, 5, plain ? "%c" : "\\x%02x", key.ptr[i]);
        }
        if (json == NULL && text != NULL)
                json = json_stringn(text, (size_t)(at - text));
        free(text);
        return json;
}

static void found(void *context, const struct verify_key *key)
{
        struct run *run = context;
        if (key->verdict == VERIFY_MOVING) {
                run->moving++;
                return;
        }
        run->different++;
        json_t *sides = json_array();
        for (size_t i = 0; i < run->region_count; i++)
                if (run->regions[i].problem[0] == 0)
                        json_array_append_new(sides, side_json(&run->regions[i],
                                                               &key->sides[run->regions[i].index]));
        json_array_append_new(run->list, json_pack("{s:i, s:o, s:s, s:o}", "db", (int)key->db,
                                                   "key", key_json(key->key), "differs",
                                                   key->missing ? "missing"
                                                   : key->value ? "value"
                                                                : "metadata",
                                                   "regions", sides));
}

static json_t *regions_json(const struct run *run)
{
        json_t *list = json_array();
        for (size_t i = 0; i < run->region_count; i++) {
                const struct region *region = &run->regions[i];
                bool good = region->problem[0] == 0;
                uint64_t keys = good ? verify_keys(run->verify, region->index) : 0;
                json_array_append_new(list,
                                      json_pack("{s:s, s:o, s:o}", "region", region->name, "keys",
                                                good ? json_integer((json_int_t)keys) : json_null(),
                                                "problem",
                                                good ? json_null() : json_string(region->problem)));
        }
        return list;
}

static const char *side_text(json_t *side, char text[static 96])
{
        const char *type = json_string_value(json_object_get(side, "type"));
        const char *name = json_string_value(json_object_get(side, "region"));
        const char *value = json_string_value(json_object_get(side, "value"));
        snprintf(text, 96, "%s: %s%s%.8s", name == NULL ? "?" : name,
                 type == NULL ? "nothing" : type, value == NULL ? "" : " ",
                 value == NULL ? "" : value);
        return text;
}

static void print_key(json_t *key)
{
        size_t index = 0;
        json_t *side = NULL;
        char text[96];
        const char *name = json_string_value(json_object_get(key, "key"));
        printf("  %s%s%s", term_style(TERM_BAD), term_symbol(TERM_FAIL), term_style(TERM_PLAIN));
        printf(" db %lld \"", (long long)json_integer_value(json_object_get(key, "db")));
        /* Control characters must not reach the terminal. */
        for (size_t i = 0; name != NULL && name[i] != 0 && i < 120; i++)
                putchar((unsigned char)name[i] < ' ' || name[i] == 0x7f ? '.' : name[i]);
        printf("\" %s", json_string_value(json_object_get(key, "differs")));
        json_array_foreach(json_object_get(key, "regions"), index, side)
                printf("  %s", side_text(side, text));
        putchar('\n');
}

static void print_keys(uint64_t keys)
{
        printf(" %llu key%s\n", (unsigned long long)keys, keys == 1 ? "" : "s");
}

static void print(const struct run *run, bool equal)
{
        for (size_t i = 0; i < run->region_count; i++) {
                const struct region *region = &run->regions[i];
                bool good = region->problem[0] == 0;
                printf("  ");
                term_cell(TERM_BOLD, region->name, 20);
                if (good)
                        print_keys(verify_keys(run->verify, region->index));
                else
                        printf(" %sleft out: %s%s\n", term_style(TERM_WARN), region->problem,
                               term_style(TERM_PLAIN));
        }
        for (size_t i = 0; i < json_array_size(run->list) && i < SHOWN_MAX; i++)
                print_key(json_array_get(run->list, i));
        if (run->different > SHOWN_MAX)
                printf("  ... %llu more; --json names all\n",
                       (unsigned long long)run->different - SHOWN_MAX);
        if (run->buckets_chosen < run->buckets_different)
                printf("  %u more of %d buckets differ and were not looked into\n",
                       run->buckets_different - run->buckets_chosen, VERIFY_BUCKETS);
        if (run->moving > 0)
                printf("  %llu keys were being written all the time\n",
                       (unsigned long long)run->moving);
        printf("%s%s%s\n", term_style(equal ? TERM_GOOD : TERM_BAD),
               run->different > 0 ? "the regions differ"
               : !equal           ? "not known: see above"
                                  : "the regions hold the same",
               term_style(TERM_PLAIN));
}

int verify_report(struct run *run)
{
        run->list = json_array();
        verify_each(run->verify, found, run);
        run->unknown = run->unknown || run->buckets_chosen < run->buckets_different;
        for (size_t i = 0; i < run->region_count; i++)
                run->unknown = run->unknown || run->regions[i].problem[0] != 0;
        bool equal = run->different == 0 && !run->unknown;
        if (run->progress)
                fprintf(stderr, "\r\033[K");
        if (run->cli->json) {
                json_t *json =
                        json_pack("{s:b, s:o, s:i, s:i, s:i, s:I, s:O}", "equal", (int)equal,
                                  "regions", regions_json(run), "buckets", (int)VERIFY_BUCKETS,
                                  "buckets_different", (int)run->buckets_different,
                                  "buckets_looked_into", (int)run->buckets_chosen, "moving",
                                  (json_int_t)run->moving, "different", run->list);
                cli_print_json(json);
                json_decref(json);
        } else {
                print(run, equal);
        }
        json_decref(run->list);
        return run->different > 0 ? VERIFY_EXIT_DIFFERENT : equal ? CLI_DONE : VERIFY_EXIT_UNKNOWN;
}
