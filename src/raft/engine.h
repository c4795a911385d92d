/* engine.h - private to raft/: what a core does behind the door. The contract of each function is
 * that of its namesake in consensus.h; the configuration has been checked. */
#ifndef MERIDIAN_RAFT_ENGINE_H
#define MERIDIAN_RAFT_ENGINE_H

#include "raft/consensus.h"

struct consensus_engine {
        const char *name;
        enum err (*open)(struct heap *heap, const struct consensus_config *config, void **ret_core);
        void (*close)(void *core);
        enum err (*start)(void *core, uint64_t now_ms, struct bytes journal, uint64_t synced,
                          struct consensus_recovery *ret);
        void (*tick)(void *core, uint64_t now_ms);
        enum err (*receive)(void *core, uint64_t now_ms, uint32_t from, struct bytes data);
        enum err (*submit)(void *core, uint64_t now_ms, struct bytes command);
        void (*synced)(void *core, uint64_t now_ms, uint64_t generation, uint64_t offset);
        void (*fail)(void *core);
        enum err (*snapshot)(void *core, struct bytes state);
        enum err (*transfer)(void *core, uint64_t now_ms, uint32_t peer);
        void (*take)(void *core, struct consensus_output *ret);
        struct consensus_status (*status)(const void *core);
        bool (*has_majority)(const void *core, uint64_t now_ms);
        /* NULL where the core cannot. */
        enum err (*snapshot_begin)(void *core);
        enum err (*snapshot_give)(void *core, struct buffer *state);
        void (*snapshot_drop)(void *core);
        void (*restored)(void *core);
        enum err (*read)(void *core, uint64_t now_ms, uint64_t id, bool lease);
        void (*peer_gone)(void *core, uint64_t now_ms, uint32_t peer);
        void (*peer_back)(void *core, uint64_t now_ms, uint32_t peer);
        bool (*lease_held)(const void *core, uint64_t now_ms);
        enum err (*member_set)(void *core, uint64_t now_ms, const struct consensus_member *member);
        enum err (*member_remove)(void *core, uint64_t now_ms, uint32_t node);
        size_t (*members)(const void *core, struct consensus_member *ret, size_t size);
};

#endif
