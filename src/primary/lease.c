/* The holder's own count of its lease: from the moment at which it asked, so it always ends before
 * the council's count does, however long the answer took. */
#include "primary/primary.h"

void primary_lease_granted(struct primary_lease *lease, uint64_t token, uint64_t sent_us,
                           uint64_t ttl_us)
{
        if (token < lease->token)
                return;
        if (token > lease->token || sent_us + ttl_us > lease->until_us)
                lease->until_us = sent_us + ttl_us;
        lease->token = token;
}

void primary_lease_lost(struct primary_lease *lease)
{
        *lease = (struct primary_lease){0};
}

enum primary_hold primary_lease_hold(const struct primary_lease *lease, uint64_t now_us,
                                     uint64_t margin_us)
{
        if (lease->token == 0 || now_us >= lease->until_us)
                return PRIMARY_UNKNOWN;
        return lease->until_us - now_us > margin_us ? PRIMARY_MINE : PRIMARY_ENDING;
}
