/* Messages, out and in.
 *
 * Out: the library's message is encoded at once (the log may change), and waits in one queue until
 * the journal is durable up to the last record of term and vote at that moment. Acknowledgements
 * need no more, because the library makes them only for entries it was told are durable. The needs
 * in the queue never fall, so what may leave is a prefix of it, and order is kept.
 *
 * In: library_message_decode has checked the form; here is checked what depends on our state and
 * what the library only asserts. Where a correct peer can send it (late, or from before a crash),
 * it is dropped in silence, else refused. */
#include "raft/library_priv.h"

#include "base/check.h"

static void queue_push(struct library *consensus, uint32_t peer,
                       const struct library_message *message)
{
        if (consensus->queue_count == consensus->queue_size) {
                size_t size = consensus->queue_size == 0 ? 32 : consensus->queue_size * 2;
                struct outgoing *queue = heap_resize(consensus->heap, consensus->queue,
                                                     size * sizeof *consensus->queue);
                if (queue == NULL)
                        return; /* as good as lost on the way */
                consensus->queue = queue;
                consensus->queue_size = size;
        }
        struct buffer out;
        buffer_init(&out, consensus->heap);
        library_message_encode(message, &consensus->entries, &out);
        if (out.err != ERR_NONE || out.len > CONSENSUS_MESSAGE_BYTES_MAX) {
                buffer_fini(&out);
                return;
        }
        consensus->queue[consensus->queue_count++] = (struct outgoing){
                .peer = peer,
                .need = consensus->config.bugs.send_before_sync ? 0 : consensus->meta_need,
                .data = buffer_view(&out),
        };
}

/* How many entries from `index` on fit one message; at least 1. */
static size_t append_fit(const struct library *consensus, uint64_t index, size_t count)
{
        size_t fit = 0;
        size_t bytes = 0;
        while (fit < count && fit < LIBRARY_ENTRIES_MAX) {
                const struct entry *entry = entries_at(&consensus->entries, index + fit);
                CHECK(entry != NULL);
                if (fit > 0 && entry->data.len > LIBRARY_APPEND_BYTES - bytes)
                        break;
                fit++;
                bytes += entry->data.len;
                if (bytes >= LIBRARY_APPEND_BYTES)
                        break;
        }
        return fit;
}

/* The library bounds entries by number only, so a long run is sent as several messages. */
static void send_append(struct library *consensus, uint32_t peer, struct library_message *message,
                        const struct raft_append_entries *append)
{
        message->type = LIBRARY_APPEND;
        message->append.previous_index = append->prev_log_index;
        message->append.previous_term = append->prev_log_term;
        message->append.commit_index = append->leader_commit;
        size_t left = append->n_entries;
        do {
                uint64_t next = message->append.previous_index + 1;
                message->append.count = left == 0 ? 0 : append_fit(consensus, next, left);
                queue_push(consensus, peer, message);
                left -= message->append.count;
                if (left == 0)
                        return;
                message->append.previous_index += message->append.count;
                const struct entry *last =
                        entries_at(&consensus->entries, message->append.previous_index);
                CHECK(last != NULL);
                message->append.previous_term = last->term;
        } while (true);
}

static void send_install(struct library *consensus, uint32_t peer, struct library_message *message,
                         const struct raft_install_snapshot *install)
{
        const struct snapshot *snapshot = &consensus->snapshot;
        CHECK(snapshot->index == install->last_index);
        message->type = LIBRARY_INSTALL;
        message->install.last_index = snapshot->index;
        message->install.last_term = snapshot->term;
        message->install.configuration_index = snapshot->configuration_index;
        message->install.configuration = snapshot->configuration;
        message->install.state = snapshot->state;
        queue_push(consensus, peer, message);
}

/* A rejected pre-vote carries the term of the request. A candidate with the longest log but a low
 * term would never learn of a higher one and nobody could win, so the true term goes in. */
static uint64_t vote_result_term(const struct library *consensus,
                                 const struct raft_request_vote_result *result)
{
        uint64_t current = raft_current_term(&consensus->raft);
        if (result->pre_vote && !result->vote_granted && current > result->term)
                return current;
        return result->term;
}

void exchange_send(struct library *consensus, const struct raft_message *from_library)
{
        uint32_t peer = (uint32_t)from_library->server_id;
        struct library_message message = {
                .type = LIBRARY_APPEND,
                .group = consensus->config.group,
                .cluster = consensus->config.cluster,
                .from = consensus->config.self,
                .to = peer,
        };
        switch (from_library->type) {
        case RAFT_APPEND_ENTRIES:
                message.term = from_library->append_entries.term;
                send_append(consensus, peer, &message, &from_library->append_entries);
                return;
        case RAFT_APPEND_ENTRIES_RESULT:
                message.type = LIBRARY_APPEND_RESULT;
                message.term = from_library->append_entries_result.term;
                message.append_result.rejected = from_library->append_entries_result.rejected;
                /* Answering an older term, the library leaves this one uninitialized. */
                message.append_result.last_index =
                        consensus->answering_old_term
                                ? 0
                                : from_library->append_entries_result.last_log_index;
                message.append_result.features = from_library->append_entries_result.features;
                message.append_result.capacity = from_library->append_entries_result.capacity;
                break;
        case RAFT_REQUEST_VOTE:
                message.type = LIBRARY_VOTE;
                message.term = from_library->request_vote.term;
                message.vote.last_index = from_library->request_vote.last_log_index;
                message.vote.last_term = from_library->request_vote.last_log_term;
                message.vote.disrupt_leader = from_library->request_vote.disrupt_leader;
                message.vote.pre_vote = from_library->request_vote.pre_vote;
                break;
        case RAFT_REQUEST_VOTE_RESULT:
                message.type = LIBRARY_VOTE_RESULT;
                message.term = vote_result_term(consensus, &from_library->request_vote_result);
                message.vote_result.granted = from_library->request_vote_result.vote_granted;
                message.vote_result.pre_vote = from_library->request_vote_result.pre_vote;
                message.vote_result.features = from_library->request_vote_result.features;
                message.vote_result.capacity = from_library->request_vote_result.capacity;
                break;
        case RAFT_INSTALL_SNAPSHOT:
                message.term = from_library->install_snapshot.term;
                send_install(consensus, peer, &message, &from_library->install_snapshot);
                return;
        case RAFT_TIMEOUT_NOW:
                message.type = LIBRARY_TIMEOUT_NOW;
                message.term = from_library->timeout_now.term;
                message.timeout_now.last_index = from_library->timeout_now.last_log_index;
                message.timeout_now.last_term = from_library->timeout_now.last_log_term;
                break;
        }
        queue_push(consensus, peer, &message);
}

size_t exchange_release(struct library *consensus)
{
        if (consensus->failed)
                return 0;
        if (consensus->messages_size < consensus->queue_count) {
                struct consensus_message *messages =
                        heap_resize(consensus->heap, consensus->messages,
                                    consensus->queue_size * sizeof *consensus->messages);
                if (messages == NULL)
                        return 0; /* they wait for the next take */
                consensus->messages = messages;
                consensus->messages_size = consensus->queue_size;
        }
        size_t count = 0;
        while (count < consensus->queue_count &&
               consensus->queue[count].need <= consensus->durable) {
                consensus->messages[count] = (struct consensus_message){
                        .peer = consensus->queue[count].peer,
                        .data = consensus->queue[count].data,
                };
                count++;
        }
        consensus->released = count;
        return count;
}

void exchange_forget(struct library *consensus)
{
        if (consensus->released == 0)
                return;
        for (size_t i = 0; i < consensus->released; i++)
                heap_free_bytes(consensus->heap, consensus->queue[i].data);
        consensus->queue_count -= consensus->released;
        memmove(consensus->queue, consensus->queue + consensus->released,
                consensus->queue_count * sizeof *consensus->queue);
        consensus->released = 0;
}

void exchange_fini(struct library *consensus)
{
        consensus->released = consensus->queue_count;
        exchange_forget(consensus);
        heap_free(consensus->heap, consensus->queue);
        heap_free(consensus->heap, consensus->messages);
}

static bool is_member(const struct library *consensus, uint32_t node)
{
        for (unsigned i = 0; i < consensus->raft.configuration.n; i++) {
                if (consensus->raft.configuration.servers[i].id == node)
                        return node != consensus->config.self;
        }
        return false;
}

/* Two leaders of one term cannot be: the library asserts that it is not the other one. */
static bool second_leader(const struct library *consensus, const struct library_message *message)
{
        return consensus->raft.state == RAFT_LEADER &&
               message->term == raft_current_term(&consensus->raft);
}

/* A leader that restarts its probing may send entries that we have compacted away. They are
 * committed, so they are the same as ours: begin behind our snapshot. (The library knows no term at
 * the trail's offset itself, unless the snapshot is there.) False: what follows does not fit it. */
static bool append_skip(const struct library *consensus, struct library_message *message)
{
        const struct snapshot *snapshot = &consensus->snapshot;
        if (consensus->raft.snapshot.installing ||
            message->append.previous_index >= snapshot->index ||
            message->append.previous_index > consensus->raft.trail.offset)
                return true;
        while (message->append.count > 0 && message->append.previous_index < snapshot->index) {
                (void)library_message_entry(&message->append.items);
                message->append.previous_index++;
                message->append.count--;
        }
        message->append.previous_index = snapshot->index;
        message->append.previous_term = snapshot->term;
        struct bytes rest = message->append.items;
        return message->append.count == 0 || library_message_entry(&rest).term >= snapshot->term;
}

/* The library's array of entries. Their data lie in one block, 8-byte aligned, which the library
 * frees or hands to store_entries. NULL: memory ran out. */
static struct raft_entry *append_entries(struct library_message *message)
{
        size_t size = 8;
        struct bytes items = message->append.items;
        for (size_t i = 0; i < message->append.count; i++)
                size += (library_message_entry(&items).data.len + 7) & ~(size_t)7;
        struct raft_entry *entries = raft_calloc(message->append.count, sizeof *entries);
        uint8_t *block = raft_malloc(size);
        if (entries == NULL || block == NULL) {
                raft_free(entries);
                raft_free(block);
                return NULL;
        }
        size_t at = 0;
        for (size_t i = 0; i < message->append.count; i++) {
                struct entry entry = library_message_entry(&message->append.items);
                entries[i].term = entry.term;
                entries[i].type = (enum raft_entry_type)entry.type;
                entries[i].buf.base = block + at;
                entries[i].buf.len = entry.data.len;
                entries[i].batch = block;
                if (entry.data.len > 0)
                        memcpy(block + at, entry.data.ptr, entry.data.len);
                at += (entry.data.len + 7) & ~(size_t)7;
        }
        return entries;
}

static enum err receive_append(struct library *consensus, struct raft_event *event,
                               struct library_message *message)
{
        if (second_leader(consensus, message))
                return ERR_MALFORMED;
        if (!append_skip(consensus, message))
                return ERR_MALFORMED;
        consensus->answering_old_term = message->term < raft_current_term(&consensus->raft);
        struct raft_append_entries *append = &event->receive.message->append_entries;
        struct raft_entry *entries = NULL;
        event->receive.message->type = RAFT_APPEND_ENTRIES;
        append->term = message->term;
        append->prev_log_index = message->append.previous_index;
        append->prev_log_term = message->append.previous_term;
        append->leader_commit = message->append.commit_index;
        append->n_entries = (unsigned)message->append.count;
        if (message->append.count > 0) {
                entries = append_entries(message);
                if (entries == NULL) {
                        consensus->answering_old_term = false;
                        return ERR_NOMEM;
                }
        }
        append->entries = entries;
        (void)library_step(consensus, event); /* frees the block or hands it on, also on errors */
        consensus->answering_old_term = false;
        raft_free(entries);
        return ERR_NONE;
}

static enum err receive_append_result(struct library *consensus, struct raft_event *event,
                                      const struct library_message *message)
{
        uint64_t rejected = message->append_result.rejected;
        uint64_t last_index = message->append_result.last_index;
        raft_index match = 0;
        /* One of a later term makes a leader step down, whatever it says of indexes. */
        bool ours = message->term == raft_current_term(&consensus->raft);
        if (ours && rejected > 0 &&
            raft_match_index(&consensus->raft, message->from, &match) == 0) {
                /* What matched cannot be rejected: a late answer. Taken seriously it would set the
                 * next index below the matched one, and the library would stall. */
                if (rejected <= match)
                        return ERR_NONE;
                if (last_index < match)
                        last_index = match;
        }
        event->receive.message->type = RAFT_APPEND_ENTRIES_RESULT;
        event->receive.message->append_entries_result = (struct raft_append_entries_result){
                .version = 1,
                .term = message->term,
                .rejected = rejected,
                .last_log_index = last_index,
                .features = message->append_result.features,
                .capacity = message->append_result.capacity,
        };
        (void)library_step(consensus, event);
        return ERR_NONE;
}

static enum err receive_vote(struct library *consensus, struct raft_event *event,
                             const struct library_message *message)
{
        event->receive.message->type = RAFT_REQUEST_VOTE;
        event->receive.message->request_vote = (struct raft_request_vote){
                .version = 2,
                .term = message->term,
                .candidate_id = message->from,
                .last_log_index = message->vote.last_index,
                .last_log_term = message->vote.last_term,
                .disrupt_leader = message->vote.disrupt_leader,
                .pre_vote = message->vote.pre_vote,
        };
        (void)library_step(consensus, event);
        return ERR_NONE;
}

static enum err receive_vote_result(struct library *consensus, struct raft_event *event,
                                    const struct library_message *message)
{
        /* The library reads the candidate's half of a union before it looks whether it is one. */
        if (consensus->raft.state != RAFT_CANDIDATE)
                return ERR_NONE;
        uint64_t term = raft_current_term(&consensus->raft);
        if (consensus->raft.candidate_state.in_pre_vote && message->vote_result.granted &&
            message->term > term + 1)
                return ERR_MALFORMED;
        event->receive.message->type = RAFT_REQUEST_VOTE_RESULT;
        event->receive.message->request_vote_result = (struct raft_request_vote_result){
                .version = 3,
                .term = message->term,
                .vote_granted = message->vote_result.granted,
                .pre_vote = message->vote_result.pre_vote,
                .features = message->vote_result.features,
                .capacity = message->vote_result.capacity,
        };
        (void)library_step(consensus, event);
        return ERR_NONE;
}

static enum err install_copy(struct library *consensus, const struct library_message *message)
{
        struct snapshot copy = {
                .index = message->install.last_index,
                .term = message->install.last_term,
                .configuration_index = message->install.configuration_index,
        };
        if (heap_copy(consensus->heap, message->install.configuration, &copy.configuration) &&
            heap_copy(consensus->heap, message->install.state, &copy.state)) {
                snapshot_fini(consensus, &consensus->install);
                consensus->install = copy;
                return ERR_NONE;
        }
        snapshot_fini(consensus, &copy);
        return ERR_NOMEM;
}

static enum err receive_install(struct library *consensus, struct raft_event *event,
                                const struct library_message *message)
{
        if (second_leader(consensus, message))
                return ERR_MALFORMED;
        if (consensus->raft.snapshot.installing)
                return ERR_NONE;
        if (message->install.last_index <= consensus->raft.commit_index &&
            message->install.last_index > consensus->snapshot.index) {
                /* Committed here, so the log must agree. */
                const struct entry *entry =
                        entries_at(&consensus->entries, message->install.last_index);
                if (entry == NULL || entry->term != message->install.last_term)
                        return ERR_MALFORMED;
        }
        enum err err = install_copy(consensus, message);
        if (err != ERR_NONE)
                return err;
        consensus->answering_old_term = message->term < raft_current_term(&consensus->raft);
        /* The library only passes data and configuration on, so it gets a token for the one and
         * nothing for the other. */
        void *token = raft_malloc(8);
        if (token == NULL)
                return ERR_NOMEM;
        event->receive.message->type = RAFT_INSTALL_SNAPSHOT;
        event->receive.message->install_snapshot = (struct raft_install_snapshot){
                .term = message->term,
                .last_index = message->install.last_index,
                .last_term = message->install.last_term,
                .conf_index = message->install.configuration_index,
                .data = {.base = token, .len = 8},
        };
        (void)library_step(consensus, event);
        consensus->answering_old_term = false;
        if (!consensus->raft.snapshot.installing)
                snapshot_fini(consensus, &consensus->install);
        return ERR_NONE;
}

static enum err receive_timeout_now(struct library *consensus, struct raft_event *event,
                                    const struct library_message *message)
{
        event->receive.message->type = RAFT_TIMEOUT_NOW;
        event->receive.message->timeout_now = (struct raft_timeout_now){
                .version = 1,
                .term = message->term,
                .last_log_index = message->timeout_now.last_index,
                .last_log_term = message->timeout_now.last_term,
        };
        (void)library_step(consensus, event);
        return ERR_NONE;
}

enum err exchange_receive(struct library *consensus, uint32_t from, struct bytes data)
{
        struct library_message message;
        if (data.len > CONSENSUS_MESSAGE_BYTES_MAX)
                return ERR_MALFORMED;
        enum err err = library_message_decode(data, &message);
        if (err != ERR_NONE)
                return err;
        if (message.group != consensus->config.group ||
            message.cluster != consensus->config.cluster || message.from != from ||
            message.to != consensus->config.self || !is_member(consensus, from))
                return ERR_REFUSED;

        char address[16];
        snprintf(address, sizeof address, "%u", from);
        struct raft_message to_library = {.server_id = from, .server_address = address};
        struct raft_event event = {.type = RAFT_RECEIVE};
        event.receive.message = &to_library;
        switch (message.type) {
        case LIBRARY_APPEND:
                return receive_append(consensus, &event, &message);
        case LIBRARY_APPEND_RESULT:
                return receive_append_result(consensus, &event, &message);
        case LIBRARY_VOTE:
                return receive_vote(consensus, &event, &message);
        case LIBRARY_VOTE_RESULT:
                return receive_vote_result(consensus, &event, &message);
        case LIBRARY_INSTALL:
                return receive_install(consensus, &event, &message);
        case LIBRARY_TIMEOUT_NOW:
                return receive_timeout_now(consensus, &event, &message);
        }
        UNREACHABLE("library_message_decode lets no other type through");
}
