/* view_code.c - the view's payload, and the checks of header and slot.
 *
 *   u64 epoch, u64 wall_us, u8 self, u8 biased, u8 region count, regions, u16 name count, names
 *   region: u8 id, u8 data, slice name, u8 state, u8 routable, u16 load, u32 rtt_us, u64 healthy,
 *           u64 x, y, z, stretch (bits of a double), u32 capacity, u8 place known,
 *           u8 count, 4 bytes each; u8 count, 16 bytes each; u8 count, endpoints
 *   endpoint: u8 family, 16 bytes, u16 port
 *   name:   slice wire, u8 empty, u8 policy, u32 ttl, u8 count, that many region ids
 *
 * After the names come, marked as empty, the names between them and their zones ("b.zone" of
 * "a.b.zone"): they exist without data (RFC 4592, 2.2.2). One that is there already is skipped.
 *
 * The writer compiles the routing table, so a reader computes nothing but indexes. A payload that
 * passes the checksum is still read as if it came from an enemy: every count, id and number is
 * checked before use. */
#include "view/view_format.h"

#include "base/cursor.h"

#define COPY_TRIES   4
#define WIRE_LEN_MAX 255u
#define LABEL_MAX    63u

_Static_assert((VIEW_NAME_BUCKETS & (VIEW_NAME_BUCKETS - 1)) == 0, "a power of two");
_Static_assert(2 * TOPOLOGY_NAMES_MAX < VIEW_NAME_BUCKETS, "a search must end at a free bucket");

static const uint8_t magic[8] = {'M', 'E', 'R', 'I', 'V', 'I', 'E', 'W'};

enum err view_header_check(const struct view_header *header, uint64_t file_size,
                           const char **ret_why)
{
        *ret_why = "offset 0: this is not a view";
        if (memcmp(header->magic, magic, sizeof magic) != 0)
                return ERR_CORRUPT;
        *ret_why = "offset 12: written on a machine of another byte order";
        if (header->byte_order != VIEW_BYTE_ORDER)
                return ERR_VERSION;
        *ret_why = "offset 8: another format version than this program's; "
                   "daemon and plugins must be of one release";
        if (header->version != VIEW_FORMAT_VERSION)
                return ERR_VERSION;
        *ret_why = "offset 32: the header's checksum is wrong";
        if (header->crc != hash_crc32c(0, bytes_of(header, offsetof(struct view_header, crc))))
                return ERR_CORRUPT;
        *ret_why = "offset 16: the sizes are not those of this format";
        if (header->file_size != VIEW_FILE_SIZE || header->slot_size != VIEW_SLOT_SIZE)
                return ERR_CORRUPT;
        *ret_why = "the file is shorter than its header says";
        if (file_size < VIEW_FILE_SIZE)
                return ERR_TRUNCATED;
        return ERR_NONE;
}

uint32_t view_slot_crc(uint64_t sequence, struct bytes payload)
{
        uint8_t head[8];
        for (unsigned i = 0; i < sizeof head; i++)
                head[i] = (uint8_t)(sequence >> (8 * i));
        return hash_crc32c(hash_crc32c(0, bytes_of(head, sizeof head)), payload);
}

static uint64_t load(const _Atomic uint64_t *word)
{
        return atomic_load_explicit(word, memory_order_acquire);
}

/* One attempt. Every load is an acquire, so that the last look at the sequence is really last. */
static enum err copy_once(const struct view_slot *slot, uint64_t generation, uint8_t *payload,
                          size_t *ret_len, size_t *ret_page_len, const char **ret_why)
{
        if (load(&slot->sequence) != generation)
                return ERR_BUSY;
        uint64_t len = load(&slot->len);
        uint64_t crc = load(&slot->crc);
        uint64_t page_len = load(&slot->page_len);
        uint64_t page_crc = load(&slot->page_crc);
        uint64_t copied = len <= VIEW_PAYLOAD_MAX ? len : 0;
        uint64_t page_at = view_page_at(copied);
        if (page_at > VIEW_PAYLOAD_MAX || page_len > VIEW_PAYLOAD_MAX - page_at)
                page_len = 0;
        if (page_len > 0)
                copied = page_at + page_len;
        for (size_t at = 0; at < copied; at += 8) {
                uint64_t word = load(&slot->words[at / 8]);
                memcpy(payload + at, &word, sizeof word);
        }
        if (load(&slot->sequence) != generation)
                return ERR_BUSY;
        *ret_why = "the length of the published slot is out of range";
        if (len > VIEW_PAYLOAD_MAX)
                return ERR_CORRUPT;
        *ret_why = "the checksum of the published slot is wrong";
        if (crc != view_slot_crc(generation, bytes_of(payload, len)))
                return ERR_CORRUPT;
        bool page_good =
                page_crc == view_slot_crc(generation, bytes_of(payload + page_at, page_len));
        *ret_page_len = page_good ? page_len : 0;
        *ret_len = len;
        return ERR_NONE;
}

enum err view_slot_copy(const struct view_file *file, uint8_t *payload, size_t *ret_len,
                        size_t *ret_page_len, uint64_t *ret_generation, const char **ret_why)
{
        for (unsigned i = 0; i < COPY_TRIES; i++) {
                uint64_t generation = load(&file->header.published);
                *ret_why = "nothing was published yet";
                if (generation == 0)
                        return ERR_NOT_FOUND;
                const struct view_slot *slot = &file->slots[generation % 2];
                enum err err = copy_once(slot, generation, payload, ret_len, ret_page_len, ret_why);
                if (err == ERR_NONE)
                        *ret_generation = generation;
                if (err != ERR_BUSY)
                        return err;
                *ret_why = "the published slot has another sequence number";
                if (load(&file->header.published) == generation)
                        return ERR_CORRUPT;
        }
        *ret_why = "it is published faster than it can be read";
        return ERR_BUSY;
}

/* Encoding. */

static uint64_t bits_of(double value)
{
        uint64_t bits;
        memcpy(&bits, &value, sizeof bits);
        return bits;
}

static uint8_t lower(uint8_t letter)
{
        return letter >= 'A' && letter <= 'Z' ? (uint8_t)(letter + ('a' - 'A')) : letter;
}

/* Appends the labels of a name as text to a name in wire form that has no end yet. */
static bool wire_append(struct view_name *name, struct bytes text)
{
        while (text.len > 0) {
                const uint8_t *dot = memchr(text.ptr, '.', text.len);
                size_t len = dot == NULL ? text.len : (size_t)(dot - text.ptr);
                if (len == 0 || len > LABEL_MAX || name->wire_len + 1u + len + 1u > WIRE_LEN_MAX)
                        return false;
                name->wire[name->wire_len++] = (uint8_t)len;
                for (size_t i = 0; i < len; i++)
                        name->wire[name->wire_len++] = lower(text.ptr[i]);
                size_t skip = dot == NULL ? len : len + 1;
                text = bytes_of(text.ptr + skip, text.len - skip);
        }
        return true;
}

static bool wire_make(const struct topology *topology, const struct topology_name *source,
                      struct view_name *name)
{
        if (source->zone >= topology->zone_count)
                return false;
        struct bytes label = bytes_of_str(source->label);
        struct bytes zone = bytes_of_str(topology->zones[source->zone].name);
        name->wire_len = 0;
        if (!bytes_equal(label, BYTES("@")) && !wire_append(name, label))
                return false;
        if (!wire_append(name, zone))
                return false;
        name->wire[name->wire_len++] = 0;
        return true;
}

static void name_encode(const struct topology_name *source, const struct view_name *name,
                        struct buffer *out)
{
        buffer_slice(out, bytes_of(name->wire, name->wire_len));
        buffer_u8(out, 0);
        buffer_u8(out, (uint8_t)source->policy);
        buffer_u32(out, source->ttl_s);
        buffer_u8(out, (uint8_t)source->order_count);
        buffer_bytes(out, bytes_of(source->order, source->order_count));
}

/* The names above `name` that are still inside its label. Returns how many. */
static uint16_t empty_encode(const struct topology_name *source, const struct view_name *name,
                             struct buffer *out)
{
        uint16_t count = 0;
        size_t at = 0;
        size_t label_len = strlen(source->label);
        while (at + 1u + name->wire[at] < label_len) {
                at += 1u + name->wire[at];
                buffer_slice(out, bytes_of(name->wire + at, name->wire_len - at));
                buffer_u8(out, 1);
                buffer_u8(out, TOPOLOGY_POLICY_NEAREST);
                buffer_u32(out, source->ttl_s);
                buffer_u8(out, 0);
                count++;
        }
        return count;
}

static enum err names_encode(const struct topology *topology, struct buffer *out)
{
        struct view_name name;
        size_t count_at = out->len;
        uint32_t count = topology->name_count;
        buffer_u16(out, 0);
        for (uint32_t i = 0; i < topology->name_count; i++) {
                if (!wire_make(topology, &topology->names[i], &name))
                        return ERR_INVALID;
                name_encode(&topology->names[i], &name, out);
        }
        for (uint32_t i = 0; i < topology->name_count; i++) {
                if (wire_make(topology, &topology->names[i], &name))
                        count += empty_encode(&topology->names[i], &name, out);
        }
        if (out->err != ERR_NONE || count > UINT16_MAX)
                return ERR_LIMIT;
        out->ptr[count_at] = (uint8_t)count;
        out->ptr[count_at + 1] = (uint8_t)(count >> 8);
        return ERR_NONE;
}

static void addresses_encode(const struct topology_address *addresses, uint32_t count, size_t len,
                             struct buffer *out)
{
        buffer_u8(out, (uint8_t)count);
        for (uint32_t i = 0; i < count; i++)
                buffer_bytes(out, bytes_of(addresses[i].bytes, len));
}

static void backends_encode(const struct topology_region *region, struct buffer *out)
{
        buffer_u8(out, (uint8_t)region->backend_count);
        for (uint32_t i = 0; i < region->backend_count; i++) {
                const struct topology_endpoint *backend = &region->backends[i];
                buffer_u8(out, backend->address.family);
                buffer_bytes(out, bytes_of(backend->address.bytes, 16));
                buffer_u16(out, backend->port);
        }
}

static void region_encode(const struct topology_region *region, const struct view_region_now *now,
                          const struct routing_entry *entry, struct buffer *out)
{
        buffer_u8(out, region->id);
        buffer_u8(out, entry->data);
        buffer_slice(out, bytes_of_str(region->name));
        buffer_u8(out, (uint8_t)now->state);
        buffer_u8(out, now->routable);
        buffer_u16(out, now->load_per_mille);
        buffer_u32(out, entry->rtt_us);
        buffer_u64(out, now->backends_healthy);
        buffer_u64(out, bits_of(entry->x));
        buffer_u64(out, bits_of(entry->y));
        buffer_u64(out, bits_of(entry->z));
        buffer_u64(out, bits_of(entry->stretch));
        buffer_u32(out, entry->capacity);
        buffer_u8(out, entry->place_known);
        addresses_encode(region->a, region->a_count, 4, out);
        addresses_encode(region->aaaa, region->aaaa_count, 16, out);
        backends_encode(region, out);
}

enum err view_encode(const struct view_content *content, struct buffer *out)
{
        const struct topology *topology = content->topology;
        uint32_t rtt_us[TOPOLOGY_REGIONS_MAX] = {0};
        struct routing_table table;
        if (content->self != 0 && topology_region_by_id(topology, content->self) == NULL)
                return ERR_INVALID;
        for (uint32_t i = 0; i < topology->region_count; i++)
                rtt_us[i] = content->regions[i].rtt_us;
        routing_compile(topology, content->self, rtt_us, &table);

        buffer_u64(out, topology->epoch);
        buffer_u64(out, content->wall_us);
        buffer_u8(out, content->self);
        buffer_u8(out, table.biased);
        buffer_u8(out, (uint8_t)topology->region_count);
        for (uint32_t i = 0; i < topology->region_count; i++)
                region_encode(&topology->regions[i], &content->regions[i], &table.entries[i], out);
        enum err err = names_encode(topology, out);
        return out->err != ERR_NONE ? out->err : err;
}

/* Decoding. */

static double double_of(uint64_t bits)
{
        double value;
        memcpy(&value, &bits, sizeof value);
        return value;
}

static uint8_t u8_max(struct cursor *cursor, unsigned max)
{
        uint8_t value = cursor_u8(cursor);
        if (value <= max)
                return value;
        cursor_fail(cursor, ERR_MALFORMED);
        return 0;
}

static uint32_t addresses_decode(struct cursor *cursor, uint8_t family,
                                 struct topology_address *addresses)
{
        uint32_t count = u8_max(cursor, TOPOLOGY_ADDRESSES_MAX);
        for (uint32_t i = 0; i < count; i++) {
                struct bytes octets = cursor_bytes(cursor, family == 4 ? 4 : 16);
                addresses[i] = (struct topology_address){.family = family};
                if (octets.len > 0)
                        memcpy(addresses[i].bytes, octets.ptr, octets.len);
        }
        return count;
}

static void backends_decode(struct cursor *cursor, struct view_region *region)
{
        region->backend_count = u8_max(cursor, TOPOLOGY_BACKENDS_MAX);
        for (uint32_t i = 0; i < region->backend_count; i++) {
                struct topology_endpoint *backend = &region->backends[i];
                *backend = (struct topology_endpoint){.address.family = cursor_u8(cursor)};
                struct bytes octets = cursor_bytes(cursor, 16);
                if (octets.len == 16)
                        memcpy(backend->address.bytes, octets.ptr, 16);
                backend->port = cursor_u16(cursor);
                bool family_known = backend->address.family == 4 || backend->address.family == 6;
                if (!family_known || backend->port == 0)
                        cursor_fail(cursor, ERR_MALFORMED);
        }
}

static void region_name_decode(struct cursor *cursor, char *name)
{
        struct bytes text = cursor_slice(cursor);
        memset(name, 0, TOPOLOGY_NAME_SIZE);
        if (text.len == 0 || text.len >= TOPOLOGY_NAME_SIZE ||
            memchr(text.ptr, 0, text.len) != NULL)
                cursor_fail(cursor, ERR_MALFORMED);
        else
                memcpy(name, text.ptr, text.len);
}

static void region_decode(struct cursor *cursor, struct view_region *region,
                          struct routing_hint *hint, struct routing_entry *entry)
{
        *region = (struct view_region){0};
        region->id = cursor_u8(cursor);
        region->data = u8_max(cursor, 1);
        region_name_decode(cursor, region->name);
        region->state = (enum region_state)u8_max(cursor, REGION_STATE_COUNT - 1);
        hint->routable = u8_max(cursor, 1);
        hint->load_per_mille = cursor_u16(cursor);
        entry->rtt_us = cursor_u32(cursor);
        region->backends_healthy = cursor_u64(cursor);
        entry->x = double_of(cursor_u64(cursor));
        entry->y = double_of(cursor_u64(cursor));
        entry->z = double_of(cursor_u64(cursor));
        entry->stretch = double_of(cursor_u64(cursor));
        entry->capacity = cursor_u32(cursor);
        entry->place_known = u8_max(cursor, 1);
        region->a_count = addresses_decode(cursor, 4, region->a);
        region->aaaa_count = addresses_decode(cursor, 6, region->aaaa);
        backends_decode(cursor, region);
        entry->id = region->id;
        entry->data = region->data;
        memcpy(entry->name, region->name, TOPOLOGY_NAME_SIZE);
}

/* Labels of 1 to 63 bytes in lower case, then the root, and nothing after it. */
static bool wire_valid(struct bytes wire)
{
        size_t at = 0;
        if (wire.len == 0 || wire.len > WIRE_LEN_MAX)
                return false;
        while (at < wire.len && wire.ptr[at] != 0) {
                size_t len = wire.ptr[at];
                if (len > LABEL_MAX || len >= wire.len - at)
                        return false;
                for (size_t i = at + 1; i <= at + len; i++) {
                        if (wire.ptr[i] != lower(wire.ptr[i]))
                                return false;
                }
                at += 1 + len;
        }
        return at + 1 == wire.len;
}

static void name_decode(struct cursor *cursor, const struct view *view, struct view_name *name)
{
        struct bytes wire = cursor_slice(cursor);
        name->wire_len = 0;
        if (wire_valid(wire)) {
                memcpy(name->wire, wire.ptr, wire.len);
                name->wire_len = (uint8_t)wire.len;
        } else {
                cursor_fail(cursor, ERR_MALFORMED);
        }
        name->empty = u8_max(cursor, 1);
        name->policy = (enum topology_policy)u8_max(cursor, TOPOLOGY_POLICY_COUNT - 1);
        name->ttl_s = cursor_u32(cursor);
        name->order_count = u8_max(cursor, TOPOLOGY_REGIONS_MAX);
        bool ordered = name->policy != TOPOLOGY_POLICY_NEAREST;
        if (ordered && name->order_count == 0)
                cursor_fail(cursor, ERR_MALFORMED);
        for (uint32_t i = 0; i < name->order_count; i++) {
                name->order[i] = cursor_u8(cursor);
                if (view_region_index(view, name->order[i]) < 0)
                        cursor_fail(cursor, ERR_MALFORMED);
        }
}

static size_t bucket_find(const struct view *view, struct bytes wire)
{
        size_t bucket = hash_fnv(HASH_FNV_START, wire) & (VIEW_NAME_BUCKETS - 1);
        while (view->buckets[bucket] != 0) {
                const struct view_name *name = &view->names[view->buckets[bucket] - 1];
                if (bytes_equal(bytes_of(name->wire, name->wire_len), wire))
                        break;
                bucket = (bucket + 1) & (VIEW_NAME_BUCKETS - 1);
        }
        return bucket;
}

const struct view_name *view_name_find(const struct view *view, struct bytes wire)
{
        uint16_t entry = view->buckets[bucket_find(view, wire)];
        return entry == 0 ? NULL : &view->names[entry - 1];
}

int view_region_index(const struct view *view, uint8_t id)
{
        for (uint32_t i = 0; i < view->region_count; i++) {
                if (view->regions[i].id == id)
                        return (int)i;
        }
        return -1;
}

/* The last name of the array gets its bucket; false if that name is there already. */
static bool name_index(struct view *view)
{
        const struct view_name *name = &view->names[view->name_count - 1];
        size_t bucket = bucket_find(view, bytes_of(name->wire, name->wire_len));
        if (view->buckets[bucket] != 0)
                return false;
        view->buckets[bucket] = (uint16_t)view->name_count;
        return true;
}

static void names_decode(struct cursor *cursor, struct view *view)
{
        uint16_t count = cursor_u16(cursor);
        for (uint16_t i = 0; i < count && !cursor_failed(cursor); i++) {
                if (view->name_count == COUNT_OF(view->names)) {
                        cursor_fail(cursor, ERR_MALFORMED);
                        return;
                }
                struct view_name *name = &view->names[view->name_count++];
                name_decode(cursor, view, name);
                if (cursor_failed(cursor) || name_index(view))
                        continue;
                if (!name->empty)
                        cursor_fail(cursor, ERR_MALFORMED);
                view->name_count--;
        }
}

/* DNS may answer an address of a family only with a region that has one. */
static void hints_derive(struct view *view)
{
        for (uint32_t i = 0; i < view->region_count; i++) {
                const struct view_region *region = &view->regions[i];
                struct routing_hint hint = view->hints[i];
                view->hints_a[i] = hint;
                view->hints_a[i].routable = hint.routable && region->a_count > 0;
                view->hints_aaaa[i] = hint;
                view->hints_aaaa[i].routable = hint.routable && region->aaaa_count > 0;
        }
}

static void regions_decode(struct cursor *cursor, struct view *view)
{
        uint32_t count = u8_max(cursor, TOPOLOGY_REGIONS_MAX);
        for (uint32_t i = 0; i < count && !cursor_failed(cursor); i++) {
                region_decode(cursor, &view->regions[i], &view->hints[i], &view->table.entries[i]);
                if (view_region_index(view, view->regions[i].id) >= 0)
                        cursor_fail(cursor, ERR_MALFORMED);
                view->region_count = i + 1;
        }
        view->table.count = view->region_count;
}

enum err view_decode(struct bytes payload, uint64_t generation, struct view *ret)
{
        struct cursor cursor = cursor_of(payload);
        memset(ret, 0, sizeof *ret);
        ret->generation = generation;
        ret->epoch = cursor_u64(&cursor);
        ret->wall_us = cursor_u64(&cursor);
        ret->self = cursor_u8(&cursor);
        ret->table.own = ret->self;
        ret->table.biased = u8_max(&cursor, 1);
        regions_decode(&cursor, ret);
        ret->self_index = ret->self == 0 ? -1 : view_region_index(ret, ret->self);
        if (ret->self != 0 && ret->self_index < 0)
                cursor_fail(&cursor, ERR_MALFORMED);
        names_decode(&cursor, ret);
        enum err err = cursor_done(&cursor);
        if (err == ERR_NONE && !routing_table_valid(&ret->table))
                err = ERR_MALFORMED;
        if (err == ERR_NONE)
                hints_derive(ret);
        return err;
}
