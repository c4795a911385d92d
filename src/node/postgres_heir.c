/* postgres_heir.c - what a new leader of the global group does about a lease of PostgreSQL's writer
 * that it found in the table.
 *
 * The table's time stands still while nobody leads, so that no client loses a lock for an election
 * in which it could not renew it (lock/lock.h). For this one lock that only costs time: its holder
 * counts from when it sent the renewal that was acknowledged last, whoever leads, and has stopped
 * when that count ends. So the new leader ends the lease when its own clock says that it is over
 * for the holder, though the table's time is not there yet.
 *
 *   An entry was made after its renewal was sent, and the table's time runs no faster than the
 *   leaders' clocks. What the lease had left behind the newest entry of the log is what it had left
 *   when that entry was made, or more; and that was before this node got it (inherited_ms). When
 *   this node's clock has counted as much since then, the lease's whole length has passed since the
 *   sending, by leaders' clocks: as where one leader's time ends it. The margin of the holder is
 *   for what these clocks and its own are apart. Pauses and late messages make all of it later.
 *
 * A renewal may not be acknowledged, and the lease be ended behind it. What others had taken is
 * applied before this node leads (ready). Any proposal of the holder's that it takes itself leaves
 * the lease to the table's time from then on. The word that ends it names owner and token, so it
 * ends no later one; who leads next and finds it in the log is bound by it as this one is. */
#include "node/node_priv.h"

#define AGAIN_US 20000

void postgres_heir_begin(struct node *node)
{
        struct postgres_heir *heir = &node->postgres.heir;
        const struct node_group *group = &node->groups[WORLD_GROUP_GLOBAL];
        uint64_t since_ms = group->status.inherited_ms;
        struct lock_info info;
        char key[POSTGRES_KEY_MAX];
        *heir = (struct postgres_heir){0};
        if (since_ms == 0 ||
            !lock_find(council_locks(group->council), postgres_lease_key(node, key), &info) ||
            postgres_owner_node(info.owner) == 0 || info.owner.len >= sizeof heir->owner)
                return;
        heir->token = info.token.value;
        /* One more, as the times of entries are cut to milliseconds. */
        heir->due_us = (since_ms + info.ttl_ms + 1) * 1000;
        if ((node->config.bugs & NODE_BUG_HEIR_AT_ONCE) != 0)
                heir->due_us = node->now_us;
        memcpy(heir->owner, info.owner.ptr, info.owner.len);
}

void postgres_heir_proposed(struct node *node, const struct lock_command *command)
{
        struct postgres_heir *heir = &node->postgres.heir;
        if (command->op != LOCK_RELEASE && (node->config.bugs & NODE_BUG_HEIR_BLIND) == 0 &&
            bytes_equal(command->owner, bytes_of_str(heir->owner)))
                heir->token = 0;
}

void postgres_heir_tick(struct node *node)
{
        struct postgres_heir *heir = &node->postgres.heir;
        struct node_group *group = &node->groups[WORLD_GROUP_GLOBAL];
        struct council_command command = {.kind = COUNCIL_LOCK, .wall_us = node->wall_us};
        struct lock_info info;
        char key[POSTGRES_KEY_MAX];
        if (heir->token == 0 || node->now_us < heir->due_us)
                return;
        command.lock.op = LOCK_RELEASE;
        command.lock.key = postgres_lease_key(node, key);
        command.lock.owner = bytes_of_str(heir->owner);
        command.lock.token.value = heir->token;
        bool stands = lock_find(council_locks(group->council), command.lock.key, &info) &&
                      info.token.value == heir->token;
        if (stands && !group_propose(node, group, &command)) {
                heir->due_us = node->now_us + AGAIN_US;
                return;
        }
        heir->token = 0;
        if (!stands)
                return;
        node->counters.heirs++;
        node_note(
                node, "postgres-lease",
                "PostgreSQL: the lease of %s is over, which was not renewed since this node leads.",
                postgres_name(node, postgres_owner_node(bytes_of_str(heir->owner))));
}

uint64_t postgres_heir_wake_us(const struct node *node)
{
        const struct postgres_heir *heir = &node->postgres.heir;
        return heir->token == 0 ? UINT64_MAX : heir->due_us;
}
