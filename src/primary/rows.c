/* The rows. Deciding is looking for the one row whose masks all hold; nothing else happens here, so
 * it cannot fail. tests/primary/test_rows.c goes through every combination. */
#include "primary/primary.h"

#include "base/check.h"
#include "base/row.h"

#include <stdio.h>

#define V(name)  (1u << PRIMARY_##name)
#define FORMER   (V(CLOSED) | V(FENCED))
#define M(name)  (1u << PRIMARY_MATCH_##name)
#define MATCHES  ((1u << PRIMARY_MATCH_COUNT) - 1)
#define R(name)  (1u << PRIMARY_RANK_##name)
#define RANKS    ((1u << PRIMARY_RANK_COUNT) - 1)
#define W(name)  (1u << PRIMARY_WISH_##name)
#define WISHES   ((1u << PRIMARY_WISH_COUNT) - 1)
#define UNFORCED (WISHES & ~W(FORCE))

enum {
        NO = ROW_NO,
        YES = ROW_YES,
        ANY = ROW_ANY,
};

#define DO(name) PRIMARY_DO_##name

/* id; servers, holds, matches, ranks, wishes; latest, loss over, automatic, ready, following,
 * founder; action, alarm, sentence */
static const struct primary_row rows[] = {
        /* Safety first: no lease, no writes. */
        {"lease-lost", V(OPEN), V(UNKNOWN) | V(FREE) | V(OTHER) | V(ENDING), MATCHES, RANKS, WISHES,
         ANY, ANY, ANY, ANY, ANY, ANY, DO(FENCE), true,
         "{node} stops taking writes: its lease is not renewed"},
        {"lease-lost-held", V(HELD), V(UNKNOWN) | V(ENDING), MATCHES, RANKS, WISHES, ANY, ANY, ANY,
         ANY, ANY, ANY, DO(FENCE), true,
         "{node} stops in the middle of a switchover: its lease is not renewed"},
        {"lease-lost-late", V(HELD), V(FREE) | V(OTHER), MATCHES, RANKS,
         W(NONE) | W(HERE) | W(FORCE), ANY, ANY, ANY, ANY, ANY, ANY, DO(FENCE), true,
         "{node} stops taking writes: its lease has ended"},
        {"handed-over", V(HELD), V(FREE) | V(OTHER), MATCHES, RANKS, W(AWAY), ANY, ANY, ANY, ANY,
         ANY, ANY, DO(FENCE), false, "{node} has handed over, and stops"},

        /* The holder. */
        {"found", V(ABSENT), V(MINE), MATCHES, R(EMPTY), WISHES, ANY, ANY, ANY, ANY, ANY, YES,
         DO(INIT), false, "{node} makes a new cluster: nobody has data"},
        {"holder-empty", V(ABSENT), V(MINE), MATCHES, R(BEST) | R(BEHIND), WISHES, ANY, ANY, ANY,
         ANY, ANY, ANY, DO(RELEASE), false, "{node} has no data: it gives the lease back"},
        {"holder-empty-later", V(ABSENT), V(MINE), MATCHES, R(EMPTY), WISHES, ANY, ANY, ANY, ANY,
         ANY, NO, DO(RELEASE), false, "{node} is not to begin: it gives the lease back"},
        {"holder-wakes", V(ASLEEP), V(MINE), MATCHES, RANKS, WISHES, ANY, ANY, ANY, ANY, ANY, ANY,
         DO(START), false, NULL},
        {"promote", V(STANDBY), V(MINE), MATCHES, R(BEST), UNFORCED, ANY, NO, ANY, ANY, ANY, ANY,
         DO(PROMOTE), false, "{node} becomes the primary: of all it has most ({loss} missing)"},
        {"promote-forced", V(STANDBY), V(MINE), MATCHES, RANKS, W(FORCE), ANY, ANY, ANY, ANY, ANY,
         ANY, DO(PROMOTE), true, "{node} becomes the primary by force ({loss} missing)"},
        {"holder-loses", V(STANDBY), V(MINE), MATCHES, R(BEST), UNFORCED, ANY, YES, ANY, ANY, ANY,
         ANY, DO(RELEASE), true,
         "{node} gives the lease back: {loss} would be lost, more than the limit"},
        {"holder-behind", V(STANDBY), V(MINE), MATCHES, R(BEHIND) | R(EMPTY), UNFORCED, ANY, ANY,
         ANY, ANY, ANY, ANY, DO(RELEASE), false, "{node} gives the lease back: {other} has more"},
        {"holder-unsure", V(STANDBY) | FORMER, V(MINE), MATCHES, R(UNSURE), UNFORCED, ANY, ANY, ANY,
         ANY, ANY, ANY, DO(NOTHING), true,
         "{node} holds the lease, but too few servers have told what they have"},
        /* A new lease is a new epoch, and an epoch is a timeline of its own: see primary.h. */
        {"return", FORMER, V(MINE), MATCHES, R(BEST), UNFORCED, YES, ANY, ANY, ANY, ANY, ANY,
         DO(START), false, "{node} comes back, to begin a timeline under its new lease"},
        {"return-forced", FORMER, V(MINE), MATCHES, RANKS, W(FORCE), ANY, ANY, ANY, ANY, ANY, ANY,
         DO(START), true, "{node} comes back by force, to begin a timeline under its new lease"},
        {"holder-old", FORMER, V(MINE), MATCHES, R(BEST), UNFORCED, NO, ANY, ANY, ANY, ANY, ANY,
         DO(RELEASE), true, "{node} gives the lease back: there was a newer primary"},
        {"holder-former-behind", FORMER, V(MINE), MATCHES, R(BEHIND) | R(EMPTY), UNFORCED, ANY, ANY,
         ANY, ANY, ANY, ANY, DO(RELEASE), false, "{node} gives the lease back: {other} has more"},
        {"hold", V(OPEN), V(MINE), MATCHES, RANKS, W(AWAY), ANY, ANY, ANY, YES, ANY, ANY, DO(HOLD),
         false, "{node} holds its writes for the switchover to {other}"},
        {"hand-over", V(HELD), V(MINE), MATCHES, RANKS, W(AWAY), ANY, ANY, ANY, YES, ANY, ANY,
         DO(RELEASE), false, "{node} hands over: {other} has everything"},
        {"switchover-off", V(HELD), V(MINE), MATCHES, RANKS, WISHES & ~W(AWAY), ANY, ANY, ANY, ANY,
         ANY, ANY, DO(OPEN), false, "{node} goes on: the switchover is off, nothing has happened"},

        /* Nobody holds it. */
        {"found-claim", V(ABSENT), V(FREE), MATCHES, R(EMPTY), WISHES, ANY, ANY, ANY, ANY, ANY, YES,
         DO(CLAIM), false, NULL},
        {"wake", V(ASLEEP), V(FREE) | V(UNKNOWN), MATCHES, RANKS, WISHES, ANY, ANY, ANY, ANY, ANY,
         ANY, DO(START), false, NULL},
        {"take-over", V(STANDBY), V(FREE), MATCHES, R(BEST), W(NONE) | W(AWAY), ANY, NO, YES, ANY,
         ANY, ANY, DO(CLAIM), false, "{node} claims the lease: of all it has most"},
        {"take-over-asked", V(STANDBY), V(FREE), MATCHES, R(BEST), W(HERE), ANY, NO, ANY, ANY, ANY,
         ANY, DO(CLAIM), false, "{node} claims the lease, as it was asked to"},
        {"take-over-forced", V(STANDBY) | FORMER, V(FREE), MATCHES, RANKS, W(FORCE), ANY, ANY, ANY,
         ANY, ANY, ANY, DO(CLAIM), true, "{node} claims the lease by force ({loss} missing)"},
        {"wait-loss", V(STANDBY), V(FREE), MATCHES, R(BEST), UNFORCED, ANY, YES, ANY, ANY, ANY, ANY,
         DO(NOTHING), true,
         "no primary: {node} has most, but {loss} would be lost, more than the limit; "
         "`meridian failover --force` takes the loss"},
        {"wait-person", V(STANDBY), V(FREE), MATCHES, R(BEST), W(NONE) | W(AWAY), ANY, NO, NO, ANY,
         ANY, ANY, DO(NOTHING), true,
         "no primary: {node} has most; `meridian failover` makes it take over"},
        {"wait-sure", V(STANDBY) | FORMER, V(FREE), MATCHES, R(UNSURE), UNFORCED, ANY, ANY, ANY,
         ANY, ANY, ANY, DO(NOTHING), true, "no primary: too few servers have told what they have"},
        {"reclaim", FORMER, V(FREE), MATCHES, R(BEST), UNFORCED & ~W(AWAY), YES, ANY, ANY, ANY, ANY,
         ANY, DO(CLAIM), false, "{node} claims the lease again: of all it has most"},
        {"wait-newer", FORMER, V(FREE), MATCHES, R(BEST), UNFORCED, NO, ANY, ANY, ANY, ANY, ANY,
         DO(NOTHING), true, "no primary: there was a newer one than {node}, and it is not heard"},

        /* Somebody else holds it. */
        {"queue", V(STANDBY), V(OTHER), M(PREFIX), RANKS, W(HERE), ANY, ANY, ANY, ANY, YES, ANY,
         DO(CLAIM), false, "{node} waits for the lease that {other} is about to give back"},
        {"clone", V(ABSENT), V(OTHER), MATCHES, RANKS & ~R(EMPTY), WISHES, ANY, ANY, ANY, ANY, ANY,
         ANY, DO(CLONE), false, "{node} is made from {other}"},
        {"join", V(ASLEEP) | FORMER, V(OTHER), M(PREFIX), RANKS, WISHES, ANY, ANY, ANY, ANY, ANY,
         ANY, DO(START), false, "{node} follows {other}"},
        {"follow", V(STANDBY), V(OTHER), M(PREFIX), RANKS, WISHES, ANY, ANY, ANY, ANY, NO, ANY,
         DO(FOLLOW), false, NULL},
        {"rewind", V(ASLEEP) | V(STANDBY) | FORMER, V(OTHER), M(DIVERGED), RANKS, WISHES, ANY, ANY,
         ANY, ANY, ANY, ANY, DO(REWIND), false,
         "{node} is rewound to where it left the line of {other}; what only it had is kept aside"},
        {"rebuild", V(ASLEEP) | V(STANDBY) | FORMER, V(OTHER), M(BROKEN), RANKS, WISHES, ANY, ANY,
         ANY, ANY, ANY, ANY, DO(REBUILD), false,
         "{node} is made anew from {other}; what only it had is kept aside"},
        {"foreign", V(ASLEEP) | V(STANDBY) | FORMER, V(OTHER), M(FOREIGN), RANKS, WISHES, ANY, ANY,
         ANY, ANY, ANY, ANY, DO(NOTHING), true,
         "{node} holds data of another cluster than {other}: move it away by hand"},
};

static bool row_fits(const struct primary_row *row, const struct primary_input *input)
{
        return row_mask_holds(row->servers, input->server) &&
               row_mask_holds(row->holds, input->hold) &&
               row_mask_holds(row->matches, input->match) &&
               row_mask_holds(row->ranks, input->rank) &&
               row_mask_holds(row->wishes, input->wish) &&
               row_flag_holds(row->latest, input->latest) &&
               row_flag_holds(row->loss_over, input->loss_over) &&
               row_flag_holds(row->automatic, input->automatic) &&
               row_flag_holds(row->ready, input->ready) &&
               row_flag_holds(row->following, input->following) &&
               row_flag_holds(row->founder, input->founder);
}

const struct primary_row *primary_decide(const struct primary_input *input)
{
        CHECK((unsigned)input->server < PRIMARY_SERVER_COUNT);
        CHECK((unsigned)input->hold < PRIMARY_HOLD_COUNT);
        CHECK((unsigned)input->match < PRIMARY_MATCH_COUNT);
        CHECK((unsigned)input->rank < PRIMARY_RANK_COUNT);
        CHECK((unsigned)input->wish < PRIMARY_WISH_COUNT);
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                if (row_fits(&rows[i], input))
                        return &rows[i];
        }
        return NULL;
}

const struct primary_row *primary_rows(size_t *ret_count)
{
        *ret_count = COUNT_OF(rows);
        return rows;
}

const struct primary_row *primary_row_by_id(struct bytes id)
{
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                if (bytes_equal(id, bytes_of_str(rows[i].id)))
                        return &rows[i];
        }
        return NULL;
}

static void loss_text(uint64_t loss, char text[static 48])
{
        if (loss == UINT64_MAX)
                snprintf(text, 48, "nobody knows how much");
        else
                snprintf(text, 48, "%llu bytes", (unsigned long long)loss);
}

const char *primary_sentence(const struct primary_row *row, const char *node, const char *other,
                             uint64_t loss, char text[static PRIMARY_SENTENCE_SIZE])
{
        char bytes[48];
        loss_text(loss, bytes);
        const struct sentence_word words[] = {
                {"{node}", node},
                {"{other}", other},
                {"{loss}", bytes},
        };
        return sentence_fill(row->sentence == NULL ? "" : row->sentence, words, COUNT_OF(words),
                             "another", text, PRIMARY_SENTENCE_SIZE);
}

/* ---- names and the page */

static const char *const server_names[PRIMARY_SERVER_COUNT] = {
        [PRIMARY_ABSENT] = "absent", [PRIMARY_ASLEEP] = "asleep", [PRIMARY_STANDBY] = "standby",
        [PRIMARY_CLOSED] = "closed", [PRIMARY_FENCED] = "fenced", [PRIMARY_OPEN] = "open",
        [PRIMARY_HELD] = "held",
};
static const char *const hold_names[PRIMARY_HOLD_COUNT] = {
        [PRIMARY_UNKNOWN] = "unknown", [PRIMARY_FREE] = "free",     [PRIMARY_OTHER] = "another's",
        [PRIMARY_MINE] = "mine",       [PRIMARY_ENDING] = "ending",
};
static const char *const match_names[PRIMARY_MATCH_COUNT] = {
        [PRIMARY_MATCH_UNKNOWN] = "unknown",   [PRIMARY_MATCH_PREFIX] = "prefix",
        [PRIMARY_MATCH_DIVERGED] = "diverged", [PRIMARY_MATCH_BROKEN] = "broken",
        [PRIMARY_MATCH_FOREIGN] = "foreign",
};
static const char *const rank_names[PRIMARY_RANK_COUNT] = {
        [PRIMARY_RANK_UNSURE] = "unsure",
        [PRIMARY_RANK_BEST] = "best",
        [PRIMARY_RANK_BEHIND] = "behind",
        [PRIMARY_RANK_EMPTY] = "all empty",
};
static const char *const wish_names[PRIMARY_WISH_COUNT] = {
        [PRIMARY_WISH_NONE] = "none",
        [PRIMARY_WISH_AWAY] = "away",
        [PRIMARY_WISH_HERE] = "here",
        [PRIMARY_WISH_FORCE] = "force",
};
static const char *const action_names[PRIMARY_ACTION_COUNT] = {
        [DO(NOTHING)] = "nothing", [DO(INIT)] = "init",     [DO(CLONE)] = "clone",
        [DO(START)] = "start",     [DO(FOLLOW)] = "follow", [DO(REWIND)] = "rewind",
        [DO(REBUILD)] = "rebuild", [DO(CLAIM)] = "claim",   [DO(RELEASE)] = "release",
        [DO(PROMOTE)] = "promote", [DO(OPEN)] = "open",     [DO(HOLD)] = "hold",
        [DO(FENCE)] = "fence",
};

static const char *name_of(const char *const *names, unsigned count, unsigned value)
{
        return value < count ? names[value] : "unknown";
}

const char *primary_server_name(enum primary_server server)
{
        return name_of(server_names, PRIMARY_SERVER_COUNT, server);
}

const char *primary_hold_name(enum primary_hold hold)
{
        return name_of(hold_names, PRIMARY_HOLD_COUNT, hold);
}

const char *primary_match_name(enum primary_match match)
{
        return name_of(match_names, PRIMARY_MATCH_COUNT, match);
}

const char *primary_rank_name(enum primary_rank rank)
{
        return name_of(rank_names, PRIMARY_RANK_COUNT, rank);
}

const char *primary_wish_name(enum primary_wish wish)
{
        return name_of(wish_names, PRIMARY_WISH_COUNT, wish);
}

const char *primary_action_name(enum primary_action action)
{
        return name_of(action_names, PRIMARY_ACTION_COUNT, action);
}

static void markdown_row(struct buffer *buffer, const struct primary_row *row)
{
        bool first = true;
        buffer_format(buffer, "| `%s` | ", row->id);
        row_mask_markdown(buffer, row->servers, PRIMARY_SERVER_COUNT, primary_server_name);
        row_mask_markdown(buffer, row->holds, PRIMARY_HOLD_COUNT, primary_hold_name);
        row_mask_markdown(buffer, row->matches, PRIMARY_MATCH_COUNT, primary_match_name);
        row_mask_markdown(buffer, row->ranks, PRIMARY_RANK_COUNT, primary_rank_name);
        row_mask_markdown(buffer, row->wishes, PRIMARY_WISH_COUNT, primary_wish_name);
        row_flag_markdown(buffer, row->latest, "newest epoch", "older epoch", &first);
        row_flag_markdown(buffer, row->loss_over, "too much lost", "little or nothing lost",
                          &first);
        row_flag_markdown(buffer, row->automatic, "automatic", "not automatic", &first);
        row_flag_markdown(buffer, row->ready, "the chosen one is ready", "not ready", &first);
        row_flag_markdown(buffer, row->following, "follows", "does not follow", &first);
        row_flag_markdown(buffer, row->founder, "is to begin", "is not to begin", &first);
        buffer_format(buffer, " | %s%s | %s |\n", primary_action_name(row->action),
                      row->alarm ? ", alarm" : "", row->sentence == NULL ? "" : row->sentence);
}

void primary_markdown(struct buffer *buffer)
{
        buffer_format(
                buffer, "%s",
                "# Who may write: the rows\n\n"
                "*For:* operators who ask why a server takes writes, waits or was stopped.\n\n"
                "Generated from `src/primary/rows.c` by `meridian-primary-rows`; a test compares. "
                "Each node asks this\ntable about its own PostgreSQL server whenever something has "
                "changed. At most one row fits any combination; where none\nfits, all is well.\n\n"
                "The lease is a lock of the council; its token is the epoch. *Rank* is own data "
                "beside what all others have told,\n*match* own data beside the lease holder's; "
                "`src/primary/primary.h` says what each word means.\n\n"
                "| row | server | lease | match | rank | operator asks | further | does | sentence "
                "|\n"
                "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
        for (size_t i = 0; i < COUNT_OF(rows); i++)
                markdown_row(buffer, &rows[i]);
}
