/* The rows. Deciding is looking for the one row whose masks all hold; nothing else happens here, so
 * it cannot fail. "Fails" below means that a region says of itself that it cannot serve. */
#include "failover/failover.h"

#include "base/check.h"
#include "base/row.h"

#define S(name)  (1u << REGION_##name)
#define STATES   ((1u << REGION_STATE_COUNT) - 1)
#define SERVING  (S(ACTIVE) | S(SUSPECT))
#define V(name)  (1u << HEALTH_##name)
#define VERDICTS ((1u << HEALTH_VERDICT_COUNT) - 1)
#define NOT_DOWN (VERDICTS & ~V(DOWN))
#define FAILS    (1u << HEALTH_SELF_FAILED)
#define WELL     (1u << HEALTH_SELF_OK | 1u << HEALTH_SELF_DEGRADED)
#define SELVES   (FAILS | WELL)
#define W(name)  (1u << FAILOVER_WISH_##name)

enum {
        NO = ROW_NO,
        YES = ROW_YES,
        ANY = ROW_ANY,
};

#define AUTOMATIC REGION_ACTOR_AUTOMATIC
#define OPERATOR  REGION_ACTOR_OPERATOR

/* id; states, verdicts, selves, wishes; caught up, held, emptied, last; refuses, to, actor,
 * sentence, and that of a witness where it differs */
static const struct failover_row rows[] = {
        {"joining-ready", S(JOINING), V(UP), WELL, W(NONE), YES, ANY, ANY, ANY, false,
         REGION_ACTIVE, AUTOMATIC, "{region} has joined and caught up: it gets traffic",
         "{region} has joined: it votes, and gets no traffic, as a witness"},
        {"joining-silent", S(JOINING), V(DOWN), SELVES, W(NONE), ANY, ANY, ANY, ANY, false,
         REGION_DOWN, AUTOMATIC, "{region} went silent before it had joined ({evidence})", NULL},

        {"region-doubted", S(ACTIVE), V(SUSPECT), WELL, W(NONE), ANY, ANY, ANY, ANY, false,
         REGION_SUSPECT, AUTOMATIC,
         "{region} is not heard by everybody ({evidence}): it still gets traffic",
         "{region} is not heard by everybody ({evidence}): its vote still counts"},
        {"region-cleared", S(SUSPECT), V(UP), WELL, W(NONE), ANY, ANY, ANY, ANY, false,
         REGION_ACTIVE, AUTOMATIC, "{region} is heard again by everybody", NULL},
        {"region-silent", SERVING, V(DOWN), SELVES, W(NONE), ANY, ANY, ANY, NO, false, REGION_DOWN,
         AUTOMATIC, "{region} is down ({evidence}): it gets no traffic",
         "{region} is down ({evidence}): its vote is missing"},
        {"region-silent-last", S(ACTIVE), V(DOWN), SELVES, W(NONE), ANY, ANY, ANY, YES, false,
         REGION_SUSPECT, AUTOMATIC,
         "{region} is not heard ({evidence}), but no other region could take its traffic",
         "{region} is not heard ({evidence}): its vote is missing"},
        {"region-failed", SERVING, NOT_DOWN, FAILS, W(NONE), ANY, ANY, ANY, NO, false, REGION_DOWN,
         AUTOMATIC, "{region} says that it cannot serve ({parts} down): it gets no traffic",
         "{region} says that it cannot serve ({parts} down): it still votes"},
        {"region-failed-last", S(ACTIVE), NOT_DOWN, FAILS, W(NONE), ANY, ANY, ANY, YES, false,
         REGION_SUSPECT, AUTOMATIC,
         "{region} says that it cannot serve ({parts} down), but no other region could either",
         "{region} says that it cannot serve ({parts} down): it still votes"},

        {"region-heard", S(DOWN), V(UP), WELL, W(NONE), ANY, ANY, ANY, ANY, false,
         REGION_RECOVERING, AUTOMATIC, "{region} is back and catches up before it gets traffic",
         "{region} is back"},
        {"recovery-silent", S(RECOVERING), V(DOWN), SELVES, W(NONE), ANY, ANY, ANY, ANY, false,
         REGION_DOWN, AUTOMATIC, "{region} went silent while it recovered ({evidence})", NULL},
        {"recovery-failed", S(RECOVERING), NOT_DOWN, FAILS, W(NONE), ANY, ANY, ANY, ANY, false,
         REGION_DOWN, AUTOMATIC,
         "{region} says while it recovers that it cannot serve ({parts} down)", NULL},
        {"recovery-done", S(RECOVERING), V(UP), WELL, W(NONE), YES, YES, ANY, ANY, false,
         REGION_ACTIVE, AUTOMATIC,
         "{region} has caught up and stayed up for the hold-down: it gets traffic again",
         "{region} has stayed up for the hold-down: it votes, and gets no traffic, as a witness"},

        {"drain-done", S(DRAINING), VERDICTS, SELVES, W(NONE), ANY, ANY, YES, ANY, false,
         REGION_DRAINED, AUTOMATIC, "{region} is drained", NULL},
        {"drain-silent", S(DRAINING), V(DOWN), SELVES, W(NONE), ANY, ANY, NO, ANY, false,
         REGION_DRAINED, AUTOMATIC,
         "{region} went silent while it drained ({evidence}): it counts as drained", NULL},

        {"operator-drain", SERVING, VERDICTS, SELVES, W(DRAIN), ANY, ANY, ANY, NO, false,
         REGION_DRAINING, OPERATOR, "{region} is being drained: it gets no new traffic",
         "{region} is being drained; it is a witness, got no traffic, and still votes"},
        {"operator-drain-last", SERVING, VERDICTS, SELVES, W(DRAIN), ANY, ANY, ANY, YES, true,
         REGION_ACTIVE, OPERATOR,
         "{region} stays: no other region could take its traffic; bring one back first",
         "{region} stays: no other region serves; bring one back first"},
        {"operator-drain-idle", S(JOINING) | S(RECOVERING), VERDICTS, SELVES, W(DRAIN), ANY, ANY,
         ANY, ANY, false, REGION_DRAINING, OPERATOR,
         "{region} is being drained before it got traffic",
         "{region} is being drained; it is a witness, got no traffic, and still votes"},
        {"operator-drain-out", S(DOWN) | S(ISOLATED), VERDICTS, SELVES, W(DRAIN), ANY, ANY, ANY,
         ANY, false, REGION_DRAINED, OPERATOR,
         "{region} is drained: it stays out until an operator returns it", NULL},
        {"operator-drain-again", S(DRAINING) | S(DRAINED), VERDICTS, SELVES, W(DRAIN), ANY, ANY,
         ANY, ANY, true, REGION_DRAINED, OPERATOR, "{region} is drained or being drained already",
         NULL},

        {"operator-undrain", S(DRAINING), NOT_DOWN, SELVES, W(RETURN), ANY, ANY, ANY, ANY, false,
         REGION_ACTIVE, OPERATOR, "{region} is not drained any more: it gets traffic",
         "{region} is not drained any more: it votes, and gets no traffic, as a witness"},
        {"operator-undrain-silent", S(DRAINING), V(DOWN), SELVES, W(RETURN), ANY, ANY, ANY, ANY,
         true, REGION_DRAINED, OPERATOR,
         "{region} cannot return now: it is down ({evidence}); repair it first", NULL},
        {"operator-return", S(DRAINED) | S(ISOLATED), VERDICTS, SELVES, W(RETURN), ANY, ANY, ANY,
         ANY, false, REGION_RECOVERING, OPERATOR,
         "{region} returns: it catches up before it gets traffic", "{region} returns"},
        {"operator-return-needless", SERVING | S(JOINING) | S(DOWN) | S(RECOVERING), VERDICTS,
         SELVES, W(RETURN), ANY, ANY, ANY, ANY, true, REGION_ACTIVE, OPERATOR,
         "{region} was not taken out by an operator: it returns by itself when it is well", NULL},

        {"operator-isolate", SERVING, VERDICTS, SELVES, W(ISOLATE), ANY, ANY, ANY, NO, false,
         REGION_ISOLATED, OPERATOR, "{region} is isolated: no traffic, no data",
         "{region} is isolated: no data"},
        {"operator-isolate-last", SERVING, VERDICTS, SELVES, W(ISOLATE), ANY, ANY, ANY, YES, true,
         REGION_ACTIVE, OPERATOR,
         "{region} stays: no other region could take its traffic; bring one back first",
         "{region} stays: no other region serves; bring one back first"},
        {"operator-isolate-out", STATES & ~(SERVING | S(ISOLATED)), VERDICTS, SELVES, W(ISOLATE),
         ANY, ANY, ANY, ANY, false, REGION_ISOLATED, OPERATOR,
         "{region}, out of traffic already, is isolated: no data", "{region} is isolated: no data"},
        {"operator-isolate-again", S(ISOLATED), VERDICTS, SELVES, W(ISOLATE), ANY, ANY, ANY, ANY,
         true, REGION_ISOLATED, OPERATOR, "{region} is isolated already", NULL},
};

static bool row_fits(const struct failover_row *row, const struct failover_input *input)
{
        return row_mask_holds(row->states, input->state) &&
               row_mask_holds(row->verdicts, input->verdict) &&
               row_mask_holds(row->selves, input->self) &&
               row_mask_holds(row->wishes, input->wish) &&
               row_flag_holds(row->caught_up, input->caught_up) &&
               row_flag_holds(row->held, input->held) &&
               row_flag_holds(row->emptied, input->emptied) &&
               row_flag_holds(row->last, input->last);
}

const struct failover_row *failover_decide(const struct failover_input *input)
{
        CHECK((unsigned)input->state < REGION_STATE_COUNT);
        CHECK((unsigned)input->verdict < HEALTH_VERDICT_COUNT);
        CHECK((unsigned)input->self < HEALTH_SELF_COUNT);
        CHECK((unsigned)input->wish < FAILOVER_WISH_COUNT);
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                if (row_fits(&rows[i], input))
                        return &rows[i];
        }
        return NULL;
}

const struct failover_row *failover_row_by_id(struct bytes id)
{
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                if (bytes_equal(id, bytes_of_str(rows[i].id)))
                        return &rows[i];
        }
        return NULL;
}

const struct failover_row *failover_rows(size_t *ret_count)
{
        *ret_count = COUNT_OF(rows);
        return rows;
}

bool failover_routable(enum region_state state, enum health_verdict verdict, enum health_self self)
{
        return region_state_serves(state) && verdict != HEALTH_DOWN && self != HEALTH_SELF_FAILED;
}

const char *failover_sentence(const struct failover_row *row, struct failover_region region,
                              const char *evidence, const char *parts,
                              char text[static FAILOVER_SENTENCE_SIZE])
{
        const char *sentence =
                region.witness && row->witness != NULL ? row->witness : row->sentence;
        const struct sentence_word words[] = {
                {"{region}", region.name},
                {"{evidence}", evidence},
                {"{parts}", parts},
        };
        return sentence_fill(sentence, words, COUNT_OF(words), "unknown", text,
                             FAILOVER_SENTENCE_SIZE);
}

static const char *const wish_names[FAILOVER_WISH_COUNT] = {
        [FAILOVER_WISH_NONE] = "none",
        [FAILOVER_WISH_DRAIN] = "drain",
        [FAILOVER_WISH_RETURN] = "return",
        [FAILOVER_WISH_ISOLATE] = "isolate",
};

const char *failover_wish_name(enum failover_wish wish)
{
        return (unsigned)wish < FAILOVER_WISH_COUNT ? wish_names[wish] : "unknown";
}

static void markdown_row(struct buffer *buffer, const struct failover_row *row)
{
        bool first = true;
        buffer_format(buffer, "| `%s` | ", row->id);
        row_mask_markdown(buffer, row->states, REGION_STATE_COUNT, region_state_name);
        row_mask_markdown(buffer, row->wishes, FAILOVER_WISH_COUNT, failover_wish_name);
        row_mask_markdown(buffer, row->verdicts, HEALTH_VERDICT_COUNT, health_verdict_name);
        row_mask_markdown(buffer, row->selves, HEALTH_SELF_COUNT, health_self_name);
        row_flag_markdown(buffer, row->caught_up, "caught up", "not caught up", &first);
        row_flag_markdown(buffer, row->held, "hold-down passed", "hold-down runs", &first);
        row_flag_markdown(buffer, row->emptied, "drain time passed", "drain time runs", &first);
        row_flag_markdown(buffer, row->last, "no other region serves", "another region serves",
                          &first);
        buffer_format(buffer, " | %s | %s |\n",
                      row->refuses ? "(refused)" : region_state_name(row->to), row->sentence);
        if (row->witness != NULL)
                buffer_format(buffer, "| | | | | | of a witness | | %s |\n", row->witness);
}

void failover_markdown(struct buffer *buffer)
{
        buffer_format(
                buffer, "%s",
                "# Failover rows\n\n"
                "*For:* operators who ask why a region is in its state; an event names its row.\n\n"
                "Generated from `src/failover/failover.c` by `meridian-rows`; a test compares. "
                "At most one row fits any\ncombination; where none fits, nothing happens.\n\n"
                "A region is *down* when a majority of all regions do not hear it. It *fails* "
                "when it says of itself that Redis, its\nedge or all of its backends are "
                "down.\n\n"
                "| row | in state | operator asks | verdict of the others | says of itself | "
                "further | becomes | sentence |\n"
                "| --- | --- | --- | --- | --- | --- | --- | --- |\n");
        for (size_t i = 0; i < COUNT_OF(rows); i++)
                markdown_row(buffer, &rows[i]);
}
