/* The sender of a state: a walk over the table, part by part, that goes on where its cursor says
 * whatever has changed since.
 *
 *      cursor  below 2^38: of table_scan
 *              bit 54: inside of large keys; bits 38 .. 53: a ticket, below: the table's cursor by
 *              which they were met
 *
 * Where such a walk is inside of a key is remembered here, for the few newest, and under a ticket
 * that is good for one part: a cursor that is asked for again, or whose place was given to
 * another scan, begins again with the keys that it had met. Bits from 56 on are the caller's.
 *
 * A receiver takes over what was seen at the begin. Where a removal had come by then and what it
 * removes comes later, before its key is told, the state must tell of the removal: the receiver
 * gets no other word of it, and the element by its stream. So while somebody may be receiving,
 * such a removal is not forgotten when the element has come, but when every member is known to
 * have that. After a pause in which nobody asked for a part it is as before, and what is asked for
 * then is of a table of another name. */
#include "base/check.h"
#include "keyspace/keyspace_priv.h"

enum {
        SCAN_STEPS_MAX = 4096,
        SLICE_ITEMS = 1024,
        SLICE_BYTES_MAX = 64 << 10,
        BUCKET_BITS = 38,
        TICKET_BITS = 16,
        INSIDE_BIT = BUCKET_BITS + TICKET_BITS,

        /* A scan that is not gone on with for so long begins anew. Of several servers, one waits
         * until it is its turn. */
        PAUSE_MS = 10 * 60 * 1000,
        PAUSE_SEVERAL_MS = 60 * 60 * 1000,
};

/* A key that is being told in slices, or waits for it. */
struct scan_key {
        struct scan_key *next;
        struct crdt_name name; /* borrows the bytes behind */
        uint8_t bytes[];
};

static uint64_t table_id(const struct keyspace *keyspace)
{
        uint64_t of[] = {keyspace->config.incarnation, keyspace->scans_epoch};
        return hash_sip(keyspace->config.hash_key, bytes_of(of, sizeof of));
}

/* The end of the last pause after which no scan goes on. */
static uint64_t scans_until_ms(const struct keyspace *keyspace)
{
        return keyspace->scanned_ms + (keyspace->config.several ? PAUSE_SEVERAL_MS : PAUSE_MS);
}

bool scan_under_way(const struct keyspace *keyspace)
{
        return keyspace->scanned_ms != 0 && hlc_ms(keyspace->hlc.last) < scans_until_ms(keyspace);
}

/* What came before has been forgotten as if there were no scan. */
static void scan_note(struct keyspace *keyspace)
{
        if (keyspace->scanned_ms != 0 && !scan_under_way(keyspace))
                keyspace->scans_epoch++;
        if (!scan_under_way(keyspace))
                keyspace->settled = (struct vector){{0}};
        keyspace->scanned_ms = hlc_ms(keyspace->hlc.last) + 1;
}

static uint64_t bucket_of(uint64_t cursor)
{
        return cursor & (((uint64_t)1 << BUCKET_BITS) - 1);
}

/* ---- places */

static void place_key_drop(struct keyspace *keyspace, struct scan_place *place)
{
        struct scan_key *key = place->keys;
        place->keys = key->next;
        heap_free(keyspace->heap, key);
        crdt_slice_fini(&place->slice);
        place->slice = (struct crdt_slice){0};
        buffer_init(&place->slice.point, keyspace->heap);
}

static void place_free(struct keyspace *keyspace, struct scan_place *place)
{
        while (place->keys != NULL)
                place_key_drop(keyspace, place);
        *place = (struct scan_place){0};
}

void scan_places_free(struct keyspace *keyspace)
{
        for (unsigned i = 0; i < SCAN_PLACES; i++)
                place_free(keyspace, &keyspace->places[i]);
}

static uint64_t place_cursor(struct keyspace *keyspace, struct scan_place *place)
{
        const uint32_t tickets = (1u << TICKET_BITS) - 1;
        keyspace->scan_ticket = keyspace->scan_ticket % tickets + 1;
        place->ticket = keyspace->scan_ticket;
        return (uint64_t)1 << INSIDE_BIT | (uint64_t)place->ticket << BUCKET_BITS | place->bucket;
}

static struct scan_place *place_find(struct keyspace *keyspace, uint64_t cursor)
{
        uint64_t bucket = bucket_of(cursor);
        uint64_t ticket = cursor >> BUCKET_BITS & ((1u << TICKET_BITS) - 1);
        for (unsigned i = 0; i < SCAN_PLACES && ticket != 0; i++) {
                struct scan_place *place = &keyspace->places[i];
                if (place->ticket == ticket && place->bucket == bucket)
                        return place;
        }
        return NULL;
}

/* The one that was not used for longest. */
static struct scan_place *place_take(struct keyspace *keyspace, uint64_t bucket)
{
        struct scan_place *place = &keyspace->places[0];
        for (unsigned i = 1; i < SCAN_PLACES; i++) {
                if (keyspace->places[i].used < place->used)
                        place = &keyspace->places[i];
        }
        place_free(keyspace, place);
        place->bucket = bucket;
        place->used = ++keyspace->scan_used;
        return place;
}

static bool place_key_add(struct keyspace *keyspace, struct scan_place *place,
                          struct crdt_name name)
{
        struct scan_key **slot = &place->keys;
        struct scan_key *key = heap_alloc(keyspace->heap, sizeof *key + name.key.len);
        if (key == NULL)
                return false;
        if (name.key.len > 0)
                memcpy(key->bytes, name.key.ptr, name.key.len);
        *key = (struct scan_key){.name = {name.db, bytes_of(key->bytes, name.key.len)}};
        while (*slot != NULL)
                slot = &(*slot)->next;
        *slot = key;
        return true;
}

/* ---- telling */

struct scan {
        struct keyspace *keyspace;
        const struct crdt_native *native;
        struct buffer *buffer;
        size_t slice_bytes;
        uint64_t at;              /* the cursor of this step */
        struct scan_place *place; /* of a key that did not fit */
        bool sliced;
        enum err err;
};

static struct crdt_env scan_env(const struct scan *scan, const struct entry *entry)
{
        struct crdt_env env = keyspace_env(scan->keyspace, scan->native, entry_name(entry));
        if (entry_type(entry) == CRDT_HLL)
                env.stable = keyspace_kills_known(scan->keyspace);
        return env;
}

static bool slice_tell(struct scan *scan, const struct entry *entry, struct crdt_slice *slice)
{
        bool done = true;
        uint32_t items = scan->keyspace->config.slice_items;
        struct crdt_env env = scan_env(scan, entry);
        scan->err = crdt_slice_encode(&env, entry->crdt, slice, items != 0 ? items : SLICE_ITEMS,
                                      scan->slice_bytes, scan->buffer, &done);
        return done || scan->err != ERR_NONE;
}

/* The first slice, which is the whole for most. One large key of a step is begun, others wait. */
static void entry_begin(struct scan *scan, const struct entry *entry)
{
        struct keyspace *keyspace = scan->keyspace;
        size_t begin = scan->buffer->len;
        struct crdt_slice slice = {0};
        buffer_init(&slice.point, keyspace->heap);
        if (slice_tell(scan, entry, &slice)) {
                crdt_slice_fini(&slice);
                return;
        }
        if (scan->place == NULL) {
                scan->place = place_take(keyspace, scan->at);
                scan->place->slice = slice;
                scan->sliced = true;
        } else {
                scan->buffer->len = begin;
                crdt_slice_fini(&slice);
        }
        if (!place_key_add(keyspace, scan->place, entry_name(entry)))
                scan->err = ERR_NOMEM;
}

static void scan_entry(void *context, struct node *node)
{
        struct scan *scan = context;
        struct entry *entry = entry_of(node);
        if (scan->err != ERR_NONE)
                return;
        if (entry->node.kind == ENTRY_FULL) {
                entry_begin(scan, entry);
                return;
        }
        struct crdt_env env = scan_env(scan, entry);
        scan->err = entry_encode(scan->keyspace, entry, &env, CRDT_STATE_VALUES, scan->buffer);
}

/* Nothing is known of the key, and all that was has died. */
static void nothing_tell(struct buffer *buffer, struct crdt_name name)
{
        buffer_varint(buffer, name.db);
        buffer_slice(buffer, name.key);
        buffer_varint(buffer, 0);
}

/* The next slice of the keys at a place. */
static void place_tell(struct scan *scan, struct scan_place *place)
{
        struct keyspace *keyspace = scan->keyspace;
        struct crdt_name name = place->keys->name;
        struct entry *entry = entry_find(keyspace, name);
        bool done = true;
        place->used = ++keyspace->scan_used;
        scan->sliced = true;
        if (entry == NULL)
                nothing_tell(scan->buffer, name);
        else if (entry->node.kind == ENTRY_FULL)
                done = slice_tell(scan, entry, &place->slice);
        else
                scan_entry(scan, &entry->node);
        if (done)
                place_key_drop(keyspace, place);
}

static void head_write(const struct keyspace *keyspace, uint64_t from, struct buffer *buffer)
{
        buffer_u8(buffer, TRANSFER_VERSION);
        buffer_u8(buffer, keyspace->config.origin);
        buffer_u64(buffer, table_id(keyspace));
        buffer_u64(buffer, from);
        buffer_u64(buffer, 0);
        buffer_u64(buffer, keyspace->hlc.last);
        crdt_seen_encode(&keyspace->seen, buffer);
        vector_encode(&keyspace->hinted, buffer);
        flushes_encode(keyspace, buffer);
}

/* Steps of the table until the part is full, the table is told, or a key does not fit. */
static uint64_t table_tell(struct scan *scan, uint64_t at, size_t len_max)
{
        struct keyspace *keyspace = scan->keyspace;
        for (unsigned i = 0; i < SCAN_STEPS_MAX && scan->err == ERR_NONE; i++) {
                CHECK(at >> BUCKET_BITS == 0);
                scan->at = at;
                at = table_scan(&keyspace->table, at, scan_entry, scan);
                if (scan->place != NULL) {
                        scan->place->next = at;
                        return place_cursor(keyspace, scan->place);
                }
                if (at == 0 || scan->buffer->len >= len_max)
                        break;
        }
        return at;
}

/* Goes on inside of the keys, then with the table. */
static uint64_t inside_tell(struct scan *scan, uint64_t cursor, size_t len_max)
{
        struct keyspace *keyspace = scan->keyspace;
        struct scan_place *place = place_find(keyspace, cursor);
        if (place == NULL)
                return table_tell(scan, bucket_of(cursor), len_max);
        place_tell(scan, place);
        if (place->keys != NULL)
                return place_cursor(keyspace, place);
        uint64_t next = place->next;
        place_free(keyspace, place);
        return next == 0 || scan->buffer->len >= len_max ? next : table_tell(scan, next, len_max);
}

enum err keyspace_scan(struct keyspace *keyspace, const struct crdt_native *native,
                       uint64_t *cursor, size_t bytes_max, struct buffer *buffer)
{
        size_t begin = buffer->len;
        struct scan scan = {.keyspace = keyspace, .native = native, .buffer = buffer};
        scan_note(keyspace);
        scan.slice_bytes = bytes_max < SLICE_BYTES_MAX ? bytes_max : SLICE_BYTES_MAX;
        scan.slice_bytes += scan.slice_bytes == 0;
        head_write(keyspace, *cursor, buffer);
        bool inside = (*cursor >> INSIDE_BIT & 1) != 0;
        uint64_t at = inside ? inside_tell(&scan, *cursor, begin + bytes_max)
                             : table_tell(&scan, bucket_of(*cursor), begin + bytes_max);
        if (scan.err != ERR_NONE || buffer->err != ERR_NONE)
                return ERR_NOMEM;
        if (scan.sliced)
                buffer->ptr[begin] = TRANSFER_SLICED;
        buffer_patch_u32(buffer, begin + TRANSFER_TO_AT, (uint32_t)at);
        buffer_patch_u32(buffer, begin + TRANSFER_TO_AT + 4, (uint32_t)(at >> 32));
        *cursor = at;
        uint64_t own = vector_get(&keyspace->seen.vector, keyspace->config.origin);
        keyspace->given = own > keyspace->given ? own : keyspace->given;
        return ERR_NONE;
}

/* A walk counts in bit-reversed order, so that it stays right while the table grows. */
unsigned keyspace_scan_permille(uint64_t cursor)
{
        uint64_t share = 0;
        if (cursor == 0)
                return 1000;
        for (unsigned i = 0; i < BUCKET_BITS; i++)
                share |= (cursor >> i & 1) << (63 - i);
        return (unsigned)((share >> 32) * 1000 >> 32);
}
