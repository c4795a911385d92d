/* lab_health.c - is the lab well? Asked of the nodes themselves, by GET /status of each: that is
 * what a person would look at, and the node has looked at its own parts. */
#include "client/client.h"
#include "lab/lab_priv.h"

#include <jansson.h>

static const char *const part_keys[] = {"redis", "dns", "edge", "backends", "postgres"};

static void text_add(char *text, size_t size, const char *word)
{
        size_t len = strlen(text);
        snprintf(text + len, size - len, "%s%s", len == 0 ? "" : ", ", word);
}

/* What an operator took out stays out: that is no illness. */
static bool operators_wish(const char *state)
{
        static const char *const states[] = {"draining", "drained", "isolated"};
        for (size_t i = 0; i < COUNT_OF(states); i++) {
                if (strcmp(state, states[i]) == 0)
                        return true;
        }
        return false;
}

/* What a node says of its own region and of the others. */
static void status_look(const struct lab *lab, json_t *status, const struct lab_region *region,
                        char *text, size_t size)
{
        size_t index = 0;
        json_t *row = NULL;
        char word[128];
        if (!json_is_true(json_object_get(status, "majority")))
                text_add(text, size, "no majority yet");
        json_array_foreach(json_object_get(status, "regions"), index, row)
        {
                const char *name = json_string_value(json_object_get(row, "name"));
                const char *state = json_string_value(json_object_get(row, "state"));
                if (name == NULL || state == NULL)
                        continue;
                if (strcmp(state, "active") != 0 && !operators_wish(state)) {
                        snprintf(word, sizeof word, "%s is %s", name, state);
                        text_add(text, size, word);
                }
                if (strcmp(name, region->name) != 0 || lab_is_witness(lab, region))
                        continue;
                json_t *parts = json_object_get(row, "parts");
                for (size_t i = 0; i < COUNT_OF(part_keys); i++) {
                        /* A lab of an older build has agreed on a topology without it. */
                        if (strcmp(part_keys[i], "postgres") == 0 &&
                            (!lab_postgres_used(lab) ||
                             !json_is_object(json_object_get(status, "postgres"))))
                                continue;
                        const char *part = json_string_value(json_object_get(parts, part_keys[i]));
                        if (part == NULL || strcmp(part, "healthy") != 0)
                                text_add(text, size, part_keys[i]);
                }
        }
}

void lab_health_look(const struct lab *lab, const struct lab_region *region, char *ret_text,
                     size_t size)
{
        char node[64];
        struct client_answer answer;
        ret_text[0] = '\0';
        for (enum lab_part part = 0; part < LAB_PARTS; part++) {
                if (lab_part_used(lab, region, part) && !lab_process_alive(lab, region, part))
                        text_add(ret_text, size, lab_part_name(part));
        }
        if (ret_text[0] != '\0')
                return;
        snprintf(node, sizeof node, "%s:%d", region->address, LAB_PORT_ADMIN);
        if (!client_get(node, "/status", 2000, &answer) || answer.status != 200) {
                text_add(ret_text, size, "meridiand does not answer yet");
        } else {
                json_t *status = json_loads(answer.body, 0, NULL);
                if (status == NULL)
                        text_add(ret_text, size, "its status cannot be read");
                else
                        status_look(lab, status, region, ret_text, size);
                json_decref(status);
        }
        client_answer_fini(&answer);
}

/* A part that was started and is gone. LAB_PARTS: none. */
static enum lab_part part_ended(const struct lab *lab, const struct lab_region *region)
{
        for (enum lab_part part = 0; part < LAB_PARTS; part++) {
                if (lab_part_used(lab, region, part) && !lab_process_alive(lab, region, part))
                        return part;
        }
        return LAB_PARTS;
}

static bool wait_failed(const struct lab *lab, const struct lab_region *region, const char *what)
{
        enum lab_part part = part_ended(lab, region);
        lab_waited();
        if (part == LAB_PARTS) {
                lab_process_log_show(lab, region, LAB_MERIDIAND);
                return lab_error("%s is not well: %s. Its logs are in %s/%s/log", region->name,
                                 what, lab->dir, region->name);
        }
        lab_process_log_show(lab, region, part);
        return lab_error("%s of %s has ended. Its logs are in %s/%s/log", lab_part_name(part),
                         region->name, lab->dir, region->name);
}

bool lab_health_wait(const struct lab *lab, const struct lab_region *region, unsigned timeout_ms)
{
        char what[512];
        uint64_t until = lab_now_ms() + timeout_ms;
        for (size_t i = 0; i < LAB_REGIONS;) {
                const struct lab_region *now = &lab_regions[i];
                if (region != NULL && region != now) {
                        i++;
                        continue;
                }
                lab_health_look(lab, now, what, sizeof what);
                if (what[0] == '\0') {
                        i++;
                        continue;
                }
                if (part_ended(lab, now) != LAB_PARTS || lab_now_ms() > until)
                        return wait_failed(lab, now, what);
                lab_waiting("%s: %s", now->name, what);
                lab_sleep_ms(100);
        }
        lab_waited();
        return true;
}
