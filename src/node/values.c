/* values.c - what clients ask of the key-value space.
 *
 *   arrive -> reads that may be stale: answered from this node's copy, with no majority
 *         |-> changes to follow: watch.c
 *         |-> what writes: a transaction in the log of the group that its keys name
 *         |-> transactions that only read: linearizable, without an entry (reads.c)
 *         `-> of another region: forwarded to a node there */
#include "base/check.h"
#include "board/board.h"
#include "node/node_priv.h"

/* All keys of a transaction begin with the name of one group. */
static bool key_fits(void *context, struct bytes key)
{
        const struct bytes *group = context;
        return bytes_starts_with(key, *group);
}

static struct bytes group_name(struct bytes key)
{
        size_t len = 0;
        while (len < key.len && key.ptr[len] != ':')
                len++;
        return bytes_of(key.ptr, len < key.len ? len + 1 : len);
}

static const struct {
        enum reply_code code;
        const char *text;
} said[KV_RESULT_COUNT] = {
        [KV_DONE] = {REPLY_OK, ""},
        [KV_INVALID] = {REPLY_BAD_REQUEST, "A key, a value or a step is out of range, or a key is "
                                           "written twice."},
        [KV_LIMIT] = {REPLY_LIMIT, "Too many keys or bytes."},
        [KV_COMPACTED] = {REPLY_COMPACTED, "That revision is forgotten; read the present state."},
        [KV_FUTURE] = {REPLY_BAD_REQUEST, "That revision is not there yet."},
        [KV_NO_SESSION] = {REPLY_NO_SESSION, "This owner's session has ended."},
};

void values_reply(struct node *node, enum request_kind kind, const struct kv_result *result,
                  struct reply *ret)
{
        *ret = (struct reply){.kind = kind, .code = REPLY_LIMIT};
        ret->text = BYTES("This node is out of memory.");
        buffer_reset(&node->scratch);
        if (result != NULL)
                kv_result_encode(result, &node->scratch);
        if (result == NULL || node->scratch.err != ERR_NONE)
                return;
        CHECK((unsigned)result->kind < KV_RESULT_COUNT && said[result->kind].text != NULL);
        ret->code = said[result->kind].code;
        ret->text = bytes_of_str(said[result->kind].text);
        ret->kv.result = buffer_view(&node->scratch);
}

void values_outcome(struct node *node, struct pending *pending, const struct kv_result *result)
{
        struct reply reply;
        values_reply(node, pending->kind, result, &reply);
        pending_answer(node, pending, &reply);
}

/* What every program of the region reads. */
static const struct bytes board_prefixes[] = {
        BYTES_INIT(BOARD_FLAG_PREFIX),
        BYTES_INIT(BOARD_CONFIG_PREFIX),
        BYTES_INIT(BOARD_SERVICE_PREFIX),
};

/* Has something of it changed? */
static bool board_changed(const struct node_group *group)
{
        for (size_t i = 0; i < COUNT_OF(board_prefixes); i++) {
                const struct kv_result *result =
                        council_kv_changes(group->council, board_prefixes[i], group->kv_seen);
                if (result == NULL || result->kind != KV_DONE || result->item_count > 0 ||
                    result->steps[0].more)
                        return true;
        }
        return false;
}

void values_changed(struct node *node, struct node_group *group)
{
        uint64_t revision = kv_revision(council_kv(group->council));
        if (group->kv_seen == revision)
                return;
        if (group->group == WORLD_GROUP_GLOBAL && board_changed(group))
                node->board_revision = revision;
        group->kv_seen = revision;
        watch_tell(node, group, WATCH_VALUES);
}

/* ---- transactions ---- */

/* A value has a name behind its group's, and one behind the prefix of what programs read. */
static bool key_named(struct bytes key, struct bytes group)
{
        bool named = key.len > group.len;
        for (size_t i = 0; i < COUNT_OF(board_prefixes); i++)
                named = named && !bytes_equal(key, board_prefixes[i]);
        return named;
}

/* What is written has a name. Refused here, not where the log is applied: a log may hold such a
 * value from before this rule, which can be read and deleted. */
static bool puts_named(const struct kv_txn *txn, struct bytes group)
{
        for (int branch = 0; branch < 2; branch++) {
                struct kv_walk walk = kv_walk_steps(txn, branch == 1);
                struct kv_step step;
                while (kv_walk_step(&walk, &step))
                        if (step.op == KV_PUT && !key_named(step.key, group))
                                return false;
        }
        return true;
}

static void stale_came(struct node *node, struct asker asker, const struct request *request,
                       const struct kv_txn *txn, struct node_group *group)
{
        struct reply reply;
        if (txn->writes) {
                request_refuse(node, asker, request->kind, REPLY_BAD_REQUEST,
                               "Only reads may be stale.");
                return;
        }
        values_reply(node, request->kind, council_kv_read(group->council, txn), &reply);
        request_answer(node, asker, &reply);
}

void values_read(struct node *node, struct asker asker, const struct node_group *group,
                 const struct request *request)
{
        struct kv_txn txn;
        struct reply reply;
        enum err err = kv_txn_decode(request->kv.txn, &txn);
        bool reads = err == ERR_NONE && !txn.writes; /* another node may ask anything */
        values_reply(node, request->kind, reads ? council_kv_read(group->council, &txn) : NULL,
                     &reply);
        request_answer(node, asker, &reply);
}

static void txn_came(struct node *node, struct asker asker, const struct request *request,
                     struct node_group *group)
{
        struct bytes name = group_name(request->kv.key);
        struct kv_txn txn;
        if (kv_txn_decode(request->kv.txn, &txn) != ERR_NONE) {
                request_refuse(node, asker, request->kind, REPLY_BAD_REQUEST,
                               "The transaction cannot be read.");
                return;
        }
        if (!kv_txn_keys(&txn, key_fits, &name)) {
                request_refuse(node, asker, request->kind, REPLY_BAD_REQUEST,
                               "All keys of a transaction belong to one group: they begin with "
                               "the same name and a colon.");
                return;
        }
        if (!puts_named(&txn, name)) {
                request_refuse(node, asker, request->kind, REPLY_BAD_REQUEST,
                               "A value needs a name: \"global:NAME\", \"us-east:NAME\", "
                               "\"global:flag/NAME\".");
                return;
        }
        bool own_copy = (node->config.bugs & NODE_BUG_READ_OWN_COPY) != 0 && !txn.writes;
        if (request->kv.stale || own_copy) {
                stale_came(node, asker, request, &txn, group);
                return;
        }
        if (request_no_majority(node, asker, request->kind, group))
                return;
        if (txn.writes && level_refuses(node, asker, request->kind, group, 2))
                return;
        if (!txn.writes) {
                read_begin(node, asker, request, group->group);
                return;
        }
        struct pending *pending = pending_for(node, asker, request->kind, group->group, 0);
        if (pending == NULL)
                return;
        struct council_command command = {.kind = COUNCIL_KV, .actor = request->kv.actor};
        command.kv = request->kv.txn;
        pending_begin(node, pending, &command);
}

void values_came(struct node *node, struct asker asker, const struct request *request,
                 struct bytes data)
{
        struct bytes region;
        bool watch = request->kind == REQUEST_KV_WATCH;
        enum council_place place = request_place(node, true, request->kv.key, &region);
        if (place == COUNCIL_PLACE_INVALID) {
                request_refuse(node, asker, request->kind, REPLY_BAD_REQUEST, council_place_help());
                return;
        }
        if (place == COUNCIL_PLACE_ELSEWHERE) {
                request_forward_region(node, asker, request, data, region,
                                       watch ? request->kv.wait_ms : 0);
                return;
        }
        struct node_group *group =
                &node->groups[place == COUNCIL_PLACE_GLOBAL ? WORLD_GROUP_GLOBAL
                                                            : WORLD_GROUP_REGION];
        if (watch)
                watch_came(node, asker, request, data, group);
        else
                txn_came(node, asker, request, group);
}
