/* lab_links.c - the wide area as commands change it: partition, heal, slow, lose. What is set is
 * saved, and told to both ends that live; the others read it when they start. */
#include "lab/lab_priv.h"
#include "term/term.h"

#include <errno.h>
#include <stdlib.h>

/* "300ms", "1s", "250us" or "300" (milliseconds). */
static bool duration_parse(const char *text, uint64_t *ret_us)
{
        static const struct {
                const char *unit;
                uint64_t us;
        } units[] = {{"us", 1}, {"ms", 1000}, {"s", 1000000}, {"", 1000}};
        char *end = NULL;
        errno = 0;
        unsigned long value = strtoul(text, &end, 10);
        for (size_t i = 0; i < COUNT_OF(units); i++) {
                if (text[0] >= '0' && text[0] <= '9' && errno == 0 && value <= 60000000 &&
                    strcmp(end, units[i].unit) == 0 && value * units[i].us <= 60000000) {
                        *ret_us = value * units[i].us;
                        return true;
                }
        }
        return lab_error("\"%s\" is no time: write 300ms or 1s, at most 60s", text);
}

/* "5%" or "0.5%". */
static bool loss_parse(const char *text, uint32_t *ret_per_mille)
{
        char *end = NULL;
        double percent = strtod(text, &end);
        if (end == text || strcmp(end, "%") != 0 || !(percent >= 0 && percent <= 100))
                return lab_error("\"%s\" is no share: write 5%%, at most 100%%", text);
        *ret_per_mille = (uint32_t)(percent * 10 + 0.5);
        return true;
}

/* Loads, lets `change` set the pair (NULL: all pairs plain), saves, tells both ends that live. */
static int wan_change(const struct lab *lab, const struct lab_region *a, const struct lab_region *b,
                      const struct lab_wan_pair *add, bool heal)
{
        struct lab_wan wan;
        if (!lab_wan_load(lab, &wan))
                return 1;
        for (size_t i = 0; i < LAB_REGIONS; i++) {
                for (size_t j = 0; j < LAB_REGIONS; j++) {
                        struct lab_wan_pair *pair = &wan.pairs[i][j];
                        bool meant = (a == NULL) ||
                                     (i == lab_region_index(a) && j == lab_region_index(b)) ||
                                     (j == lab_region_index(a) && i == lab_region_index(b));
                        if (!meant)
                                continue;
                        if (heal)
                                *pair = (struct lab_wan_pair){0};
                        pair->cut = pair->cut || add->cut;
                        pair->slow_us = add->slow_us > 0 ? add->slow_us : pair->slow_us;
                        pair->loss_per_mille = add->loss_per_mille > 0 ? add->loss_per_mille
                                                                       : pair->loss_per_mille;
                }
        }
        bool done = lab_wan_save(lab, &wan);
        for (size_t i = 0; i < LAB_REGIONS; i++) {
                bool meant = a == NULL || i == lab_region_index(a) || i == lab_region_index(b);
                if (meant &&
                    (lab->nodes > 1 || lab_process_alive(lab, &lab_regions[i], LAB_MERIDIAND)))
                        done = lab_wan_apply(lab, &wan, i, true) && done;
        }
        return done ? 0 : 1;
}

/* Opens the lab and finds the two regions of argv[1] and argv[2]. */
static bool pair_open(struct lab *lab, char **argv, const struct lab_region **ret_a,
                      const struct lab_region **ret_b)
{
        *ret_a = lab_region_find(argv[1]);
        *ret_b = *ret_a == NULL ? NULL : lab_region_find(argv[2]);
        if (*ret_a == NULL || *ret_b == NULL)
                return false;
        if (*ret_a == *ret_b)
                return lab_error("%s twice: name two regions", argv[1]);
        return lab_open_made(lab) && lab_lock_take(lab);
}

int lab_command_partition(int argc, char **argv)
{
        static struct lab lab;
        const struct lab_region *a = NULL;
        const struct lab_region *b = NULL;
        struct lab_wan_pair pair = {.cut = true};
        if (argc != 3)
                return lab_usage("partition REGION REGION");
        if (!pair_open(&lab, argv, &a, &b) || wan_change(&lab, a, b, &pair, false) != 0)
                return 1;
        lab_step("partition", "nothing passes between %s and %s; `lab heal` ends it", a->name,
                 b->name);
        return 0;
}

int lab_command_heal(int argc, char **argv)
{
        static struct lab lab;
        const struct lab_region *a = NULL;
        const struct lab_region *b = NULL;
        struct lab_wan_pair pair = {0};
        if (argc != 1 && argc != 3)
                return lab_usage("heal [REGION REGION]");
        bool open = argc == 3 ? pair_open(&lab, argv, &a, &b)
                              : lab_open_made(&lab) && lab_lock_take(&lab);
        if (!open || wan_change(&lab, a, b, &pair, true) != 0)
                return 1;
        if (a == NULL)
                lab_step("heal", "all links are as between the real regions");
        else
                lab_step("heal", "the link between %s and %s is as between the real regions",
                         a->name, b->name);
        return 0;
}

int lab_command_slow(int argc, char **argv)
{
        static struct lab lab;
        const struct lab_region *a = NULL;
        const struct lab_region *b = NULL;
        struct lab_wan_pair pair = {0};
        if (argc != 4)
                return lab_usage("slow REGION REGION 300ms");
        if (!duration_parse(argv[3], &pair.slow_us))
                return 2;
        pair.slow_us /= 2;
        if (!pair_open(&lab, argv, &a, &b) || wan_change(&lab, a, b, &pair, false) != 0)
                return 1;
        lab_step("slow", "round trips between %s and %s take %s longer", a->name, b->name, argv[3]);
        return 0;
}

int lab_command_lose(int argc, char **argv)
{
        static struct lab lab;
        const struct lab_region *a = NULL;
        const struct lab_region *b = NULL;
        struct lab_wan_pair pair = {0};
        if (argc != 4)
                return lab_usage("lose REGION REGION 5%");
        if (!loss_parse(argv[3], &pair.loss_per_mille))
                return 2;
        if (!pair_open(&lab, argv, &a, &b) || wan_change(&lab, a, b, &pair, false) != 0)
                return 1;
        lab_step("lose", "%s of what passes between %s and %s is lost on its first way", argv[3],
                 a->name, b->name);
        return 0;
}

void lab_links_print(const struct lab *lab)
{
        struct lab_wan wan;
        if (!lab_wan_load(lab, &wan))
                return;
        for (size_t a = 0; a < LAB_REGIONS; a++) {
                for (size_t b = a + 1; b < LAB_REGIONS; b++) {
                        const struct lab_wan_pair *pair = &wan.pairs[a][b];
                        printf("  %-12s %s %-14s %u ms", lab_regions[a].name,
                               term_symbol(TERM_ARROW), lab_regions[b].name, lab_wan_rtt_ms(a, b));
                        if (pair->slow_us > 0)
                                printf(", slowed by %llu ms",
                                       (unsigned long long)pair->slow_us / 500);
                        if (pair->loss_per_mille > 0)
                                printf(", loses %u.%u%%", pair->loss_per_mille / 10,
                                       pair->loss_per_mille % 10);
                        printf("%s\n", pair->cut ? ", cut" : "");
                }
        }
}
