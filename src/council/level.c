/* Levels: which commands a build knows, and which all replicas of a group are known to know. A
 * replica that does not know a command cannot skip it, or it would differ from then on without a
 * word, so nothing is proposed above the level that the group has reached by its log. */
#include "council/council_priv.h"

#include <stdio.h>

unsigned council_command_level(const struct council_command *command)
{
        static const uint8_t levels[COUNCIL_COMMAND_COUNT] = {
                [COUNCIL_NOOP] = 1, [COUNCIL_SET_TOPOLOGY] = 1, [COUNCIL_SET_REGION_STATE] = 1,
                [COUNCIL_LOCK] = 1, [COUNCIL_KV] = 2,           [COUNCIL_SET_LEVEL] = 2,
        };
        if (command->kind == COUNCIL_LOCK && (command->lock.flags & LOCK_DETECT_SLOTS) != 0)
                return COUNCIL_LEVEL_SLOTS;
        if (command->kind == COUNCIL_LOCK && command->lock.op == LOCK_ACQUIRE_ALL)
                return COUNCIL_LEVEL_SETS;
        return levels[command->kind];
}

unsigned council_level(const struct council *council)
{
        return council->level;
}

unsigned council_level_known(const struct council_config *config)
{
        return config->level_max == 0 || config->level_max > COUNCIL_LEVEL ? COUNCIL_LEVEL
                                                                           : config->level_max;
}

void council_level_apply(struct council *council, const struct council_command *command,
                         uint64_t index)
{
        char text[48];
        if (command->level <= council->level)
                return;
        (void)snprintf(text, sizeof text, "level %u -> %u", council->level, command->level);
        council->level = command->level;
        struct council_audit line = {
                .index = index,
                .wall_us = command->wall_us,
                .actor = command->actor,
                .what = bytes_of_str(text),
                .why = BYTES("every node knows it"),
        };
        if (!council_audit_add(council, &line))
                council->fatal = true;
}
