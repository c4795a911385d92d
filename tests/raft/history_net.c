/* A node's disk, of which a crash keeps what was synced and any part of the rest, and the messages:
 * a heap by time. */
#include "history_priv.h"

/* ---- disk ---- */

static void aside_write(struct world *w, struct disk *disk, const struct consensus_write *write)
{
        if (write->offset == 0) {
                buffer_reset(&disk->aside);
                disk->aside_generation = write->generation;
        }
        if (write->generation != disk->aside_generation || write->offset != disk->aside.len)
                violate(w, "a piece that does not follow");
        buffer_bytes(&disk->aside, write->data);
        disk->aside_at = w->now + 1 + below(w, w->disk_ms);
}

/* From here on it is a replacement, of which all but the last piece is durable. */
static void aside_swap(struct world *w, struct disk *disk, const struct consensus_write *write)
{
        if (write->generation != disk->aside_generation || write->offset != disk->aside.len ||
            disk->aside_at != 0)
                violate(w, "a swap of what is not durable");
        struct buffer old = disk->next;
        disk->next = disk->aside;
        disk->aside = old;
        buffer_reset(&disk->aside);
        disk->replacing = true;
        disk->next_generation = write->generation;
        disk->sync_at = 0;
}

void disk_write(struct world *w, struct disk *disk, const struct consensus_write *write)
{
        if (write->kind == CONSENSUS_ASIDE) {
                aside_write(w, disk, write);
                return;
        }
        if (write->kind == CONSENSUS_SWAP)
                aside_swap(w, disk, write);
        if (write->kind == CONSENSUS_REPLACE) {
                disk->replacing = true;
                disk->next_generation = write->generation;
                buffer_reset(&disk->next);
                disk->sync_at = 0;
        }
        struct buffer *file = disk->replacing ? &disk->next : &disk->file;
        if (write->generation != (disk->replacing ? disk->next_generation : disk->generation))
                violate(w, "a write to another generation");
        file->len = (size_t)write->offset;
        if (!disk->replacing && disk->synced > file->len)
                disk->synced = file->len; /* zeros that lay behind the last record */
        buffer_bytes(file, write->data);
        if (disk->sync_at == 0) {
                disk->sync_at = w->now + 1 + below(w, w->disk_ms);
                disk->sync_len = file->len;
        }
}

void disk_swap(struct disk *disk)
{
        struct buffer old = disk->file;
        disk->file = disk->next;
        disk->next = old;
}

void disk_crash(struct world *w, struct disk *disk)
{
        if (disk->replacing && chance(w, 500)) {
                /* The rename has happened, after the sync of what was there then. */
                disk_swap(disk);
                disk->synced = disk->file.len;
        }
        disk->replacing = false;
        disk->sync_at = disk->aside_at = 0;
        size_t loose = disk->file.len - disk->synced;
        disk->file.len = disk->synced + (size_t)below(w, loose + 1);
        size_t torn = disk->file.len - disk->synced;
        if (torn > 0 && chance(w, 500)) {
                size_t damaged = 1 + (size_t)below(w, torn < 40 ? torn : 40);
                for (size_t i = 0; i < damaged; i++)
                        disk->file.ptr[disk->file.len - 1 - i] = (uint8_t)rng_next(&w->rng);
        }
}

/* ---- network ---- */

static bool earlier(const struct message *a, const struct message *b)
{
        return a->at != b->at ? a->at < b->at : a->order < b->order;
}

void message_push(struct world *w, struct message message)
{
        size_t at = w->message_count++;
        while (at > 0 && earlier(&message, &w->messages[(at - 1) / 2])) {
                w->messages[at] = w->messages[(at - 1) / 2];
                at = (at - 1) / 2;
        }
        w->messages[at] = message;
}

struct message message_pop(struct world *w)
{
        struct message first = w->messages[0];
        struct message last = w->messages[--w->message_count];
        size_t at = 0;
        for (;;) {
                size_t child = 2 * at + 1;
                if (child >= w->message_count)
                        break;
                if (child + 1 < w->message_count &&
                    earlier(&w->messages[child + 1], &w->messages[child]))
                        child++;
                if (!earlier(&w->messages[child], &last))
                        break;
                w->messages[at] = w->messages[child];
                at = child;
        }
        w->messages[at] = last;
        return first;
}

static void send_one(struct world *w, unsigned from, unsigned to, struct bytes data)
{
        if (w->message_count == MESSAGES_MAX)
                return;
        struct message m = {.at = w->now + 1 + below(w, w->delay_ms),
                            .order = w->order++,
                            .from = from,
                            .to = to};
        if (w->ordered && m.at < w->link_last[from][to])
                m.at = w->link_last[from][to];
        w->link_last[from][to] = m.at;
        if (heap_copy(&w->heap, data, &m.data))
                message_push(w, m);
}

void net_send(struct world *w, unsigned from, const struct consensus_message *message)
{
        unsigned to = message->peer - 1;
        if (to >= NODES || to == from) {
                violate(w, "a message to nobody");
                return;
        }
        if (w->cut[from][to] || chance(w, w->loss))
                return;
        send_one(w, from, to, message->data);
        if (chance(w, w->repeat))
                send_one(w, from, to, message->data);
}

/* The library wants connections: what was under way on one ends with it. */
void messages_drop(struct world *w, unsigned at)
{
        struct message kept[64];
        size_t count = 0;
        while (w->message_count > 0) {
                struct message m = message_pop(w);
                if (m.from == at || m.to == at || count == COUNT_OF(kept))
                        heap_free_bytes(&w->heap, m.data);
                else
                        kept[count++] = m;
        }
        for (size_t i = 0; i < count; i++)
                message_push(w, kept[i]);
}
