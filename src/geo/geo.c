/* geo.c - lookups in a MaxMind-format database, and its replacement under way.
 *
 * Up to SWAP_SLOTS databases can be mapped; one is current. geo_refresh opens a changed file into
 * an idle slot and then makes it current; what an idle slot still holds is closed at that time. A
 * file that does not open leaves the current one alone. A lookup that runs into damaged data says
 * "not located": a wrong place is never an error of the caller. */
#include "geo/geo.h"

#include "base/swap.h"

#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <maxminddb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

/* What tells one file from another that took its place. */
struct file_identity {
        dev_t device;
        ino_t inode;
        off_t size;
        struct timespec changed;
};

#define CACHE_ENTRIES 4096u
#define SHORTCUT_BITS 16u

/* Words of the cache: key is CACHE_USED, located, country and offset; coordinates are millionths of
 * a degree, latitude in the upper half. */
#define CACHE_USED    (UINT64_C(1) << 63)
#define CACHE_LOCATED (UINT64_C(1) << 62)

struct cache_entry {
        _Atomic uint64_t key;
        _Atomic uint64_t coordinates;
        _Atomic uint64_t check;
};

struct geo {
        char *path;
        struct swap swap;
        MMDB_s databases[SWAP_SLOTS];
        struct cache_entry *caches[SWAP_SLOTS]; /* CACHE_ENTRIES each */
        uint32_t *shortcuts[SWAP_SLOTS]; /* node or record after the first SHORTCUT_BITS of IPv4 */
        bool opened[SWAP_SLOTS];
        struct file_identity identity; /* of the current one */
};

/* Where IPv6 carries IPv4: the prefix, after which the four octets follow. */
static const struct {
        uint8_t prefix[12];
        uint8_t prefix_len;
} embeddings[] = {
        {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, 96}, /* mapped, RFC 4291 2.5.5.2 */
        {{0x00, 0x64, 0xff, 0x9b}, 96},                   /* NAT64, RFC 6052 2.1 */
        {{0x20, 0x02}, 16},                               /* 6to4, RFC 3056 */
};

struct geo *geo_new(const char *path)
{
        struct geo *geo = aligned_alloc(_Alignof(struct geo), sizeof *geo);
        if (geo == NULL)
                return NULL;
        memset(geo, 0, sizeof *geo);
        swap_init(&geo->swap);
        geo->path = strdup(path);
        bool made = geo->path != NULL;
        for (size_t slot = 0; slot < SWAP_SLOTS; slot++) {
                geo->caches[slot] = calloc(CACHE_ENTRIES, sizeof *geo->caches[slot]);
                geo->shortcuts[slot] = calloc(1u << SHORTCUT_BITS, sizeof *geo->shortcuts[slot]);
                made = made && geo->caches[slot] != NULL && geo->shortcuts[slot] != NULL;
        }
        if (made)
                return geo;
        geo_free(geo);
        return NULL;
}

void geo_free(struct geo *geo)
{
        if (geo == NULL)
                return;
        for (size_t slot = 0; slot < SWAP_SLOTS; slot++) {
                if (geo->opened[slot])
                        MMDB_close(&geo->databases[slot]);
                free(geo->caches[slot]);
                free(geo->shortcuts[slot]);
        }
        free(geo->path);
        free(geo);
}

static void say(char *why, size_t why_size, const char *path, const char *reason)
{
        if (why != NULL && why_size > 0)
                (void)snprintf(why, why_size, "geo database %s: %s", path, reason);
}

static bool identity_equal(const struct file_identity *a, const struct file_identity *b)
{
        return a->device == b->device && a->inode == b->inode && a->size == b->size &&
               a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec;
}

static enum err identity_read(const char *path, struct file_identity *ret)
{
        struct stat info;
        if (stat(path, &info) != 0)
                return errno == ENOENT || errno == ENOTDIR ? ERR_NOT_FOUND : ERR_IO;
        *ret = (struct file_identity){info.st_dev, info.st_ino, info.st_size, info.st_mtim};
        return ERR_NONE;
}

static enum err err_of_database(int status)
{
        switch (status) {
        case MMDB_SUCCESS:
                return ERR_NONE;
        case MMDB_OUT_OF_MEMORY_ERROR:
                return ERR_NOMEM;
        case MMDB_FILE_OPEN_ERROR:
        case MMDB_IO_ERROR:
                return ERR_IO;
        default:
                return ERR_MALFORMED;
        }
}

static void slot_close(struct geo *geo, int slot)
{
        if (!geo->opened[slot])
                return;
        MMDB_close(&geo->databases[slot]);
        geo->opened[slot] = false;
}

/* Nobody reads it yet. */
static void cache_clear(struct cache_entry *cache)
{
        for (size_t i = 0; i < CACHE_ENTRIES; i++)
                atomic_store_explicit(&cache[i].key, 0u, memory_order_relaxed);
}

/* Closes what nobody reads any more, so that a replaced file does not stay mapped for long. */
static void slots_sweep(struct geo *geo)
{
        for (int slot = 0; slot < SWAP_SLOTS; slot++) {
                if (geo->opened[slot] && swap_idle(&geo->swap, slot))
                        slot_close(geo, slot);
        }
}

/* One record of a node, big-endian; of 28 bits, the middle byte has the upper four of both. */
static inline uint32_t record_read(const uint8_t *tree, unsigned record_size, uint32_t node,
                                   unsigned side)
{
        const uint8_t *at = tree + (size_t)node * (record_size / 4);
        uint32_t middle;
        switch (record_size) {
        case 24:
                at += (size_t)side * 3;
                return (uint32_t)at[0] << 16 | (uint32_t)at[1] << 8 | at[2];
        case 28:
                middle = side == 0 ? at[3] >> 4 : at[3] & 0x0fu;
                at += (size_t)side * 4;
                return middle << 24 | (uint32_t)at[0] << 16 | (uint32_t)at[1] << 8 | at[2];
        default:
                at += (size_t)side * 4;
                return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
        }
}

static uint32_t root_of_v4(const MMDB_s *database)
{
        return database->metadata.ip_version == 6 ? database->ipv4_start_node.node_value : 0;
}

/* Bits of the address decide, from the highest on, until the record is no node. */
__attribute__((always_inline)) static inline uint32_t
descend_sized(const MMDB_s *database, unsigned record_size, uint32_t node, const uint8_t *ip,
              unsigned bits, unsigned *ret_depth)
{
        const uint8_t *tree = database->file_content;
        uint32_t nodes = database->metadata.node_count;
        unsigned bit = 0;
        for (; bit < bits && node < nodes; bit++) {
                unsigned side = (unsigned)ip[bit / 8] >> (7 - bit % 8) & 1u;
                node = record_read(tree, record_size, node, side);
        }
        *ret_depth = bit;
        return node;
}

/* Descends the tree from a node, as libmaxminddb does, only without a call for each bit, and with a
 * loop for each size of records. Returns the record that is no node, and counts the bits. */
static uint32_t tree_descend(const MMDB_s *database, uint32_t node, const uint8_t *ip,
                             unsigned bits, unsigned *ret_depth)
{
        switch (database->metadata.record_size) {
        case 24:
                return descend_sized(database, 24, node, ip, bits, ret_depth);
        case 28:
                return descend_sized(database, 28, node, ip, bits, ret_depth);
        default:
                return descend_sized(database, 32, node, ip, bits, ret_depth);
        }
}

/* Half of an IPv4 lookup, done in advance: a few milliseconds for all first two octets. */
static void shortcuts_make(const MMDB_s *database, uint32_t *shortcuts)
{
        for (uint32_t head = 0; head < 1u << SHORTCUT_BITS; head++) {
                uint8_t ip[2] = {(uint8_t)(head >> 8), (uint8_t)head};
                unsigned depth;
                shortcuts[head] =
                        tree_descend(database, root_of_v4(database), ip, SHORTCUT_BITS, &depth);
        }
}

/* As tree_descend from the root of IPv4. A leaf above the shortcut is found the long way, which is
 * shorter than the shortcut then. */
static uint32_t tree_descend_v4(const MMDB_s *database, const uint32_t *shortcuts,
                                const uint8_t *ip, unsigned *ret_depth)
{
        uint32_t node = shortcuts[(uint32_t)ip[0] << 8 | ip[1]];
        if (node >= database->metadata.node_count)
                return tree_descend(database, root_of_v4(database), ip, 32, ret_depth);
        node = tree_descend(database, node, ip + 2, 32 - SHORTCUT_BITS, ret_depth);
        *ret_depth += SHORTCUT_BITS;
        return node;
}

enum err geo_refresh(struct geo *geo, bool *ret_changed, char *why, size_t why_size)
{
        if (ret_changed != NULL)
                *ret_changed = false;
        slots_sweep(geo);

        struct file_identity identity;
        enum err err = identity_read(geo->path, &identity);
        if (err != ERR_NONE) {
                say(why, why_size, geo->path, strerrordesc_np(errno));
                return err;
        }
        if (geo_ready(geo) && identity_equal(&identity, &geo->identity))
                return ERR_NONE;
        int slot = swap_idle_find(&geo->swap);
        if (slot == SWAP_NONE) {
                say(why, why_size, geo->path, "all slots are being read");
                return ERR_BUSY;
        }

        int status = MMDB_open(geo->path, MMDB_MODE_MMAP, &geo->databases[slot]);
        if (status != MMDB_SUCCESS) {
                say(why, why_size, geo->path, MMDB_strerror(status));
                return err_of_database(status);
        }
        cache_clear(geo->caches[slot]);
        shortcuts_make(&geo->databases[slot], geo->shortcuts[slot]);
        geo->opened[slot] = true;
        geo->identity = identity;
        swap_set(&geo->swap, slot);
        if (ret_changed != NULL)
                *ret_changed = true;
        return ERR_NONE;
}

bool geo_ready(struct geo *geo)
{
        return atomic_load(&geo->swap.current) != SWAP_NONE;
}

/* How many leading bits two addresses share, at most `max`. */
static unsigned bits_common(const uint8_t *a, const uint8_t *b, unsigned max)
{
        for (unsigned bit = 0; bit < max; bit++) {
                unsigned mask = 0x80u >> (bit % 8);
                if (((a[bit / 8] ^ b[bit / 8]) & mask) != 0)
                        return bit;
        }
        return max;
}

/* If the address carries an IPv4 one: true, and which and where it begins. Otherwise *ret_bits is
 * how long a prefix must be to stay clear of all addresses that do. */
static bool embedded(const struct geo_address *address, struct geo_address *ret, unsigned *ret_bits)
{
        unsigned clear_bits = 0;
        for (size_t i = 0; i < COUNT_OF(embeddings); i++) {
                unsigned len = embeddings[i].prefix_len;
                unsigned common = bits_common(address->ip, embeddings[i].prefix, len);
                if (common == len) {
                        *ret = (struct geo_address){.family = GEO_FAMILY_V4};
                        memcpy(ret->ip, address->ip + len / 8, 4);
                        *ret_bits = len;
                        return true;
                }
                if (common + 1 > clear_bits)
                        clear_bits = common + 1;
        }
        *ret_bits = clear_bits;
        return false;
}

static bool number_at(const MMDB_s *database, uint32_t offset, const char *key, double *ret)
{
        const char *const path[] = {key, NULL};
        MMDB_entry_s map = {.mmdb = database, .offset = offset};
        MMDB_entry_data_s data;
        if (MMDB_aget_value(&map, &data, path) != MMDB_SUCCESS || !data.has_data ||
            data.type != MMDB_DATA_TYPE_DOUBLE)
                return false;
        *ret = data.double_value;
        return true;
}

/* A comparison with NaN is false, so this also keeps those out. */
static bool located(double latitude, double longitude)
{
        return latitude >= -90 && latitude <= 90 && longitude >= -180 && longitude <= 180;
}

static void place_read(MMDB_entry_s *entry, struct geo_place *place)
{
        static const char *const location_path[] = {"location", NULL};
        static const char *const country_path[] = {"country", "iso_code", NULL};
        MMDB_entry_data_s data;
        if (MMDB_aget_value(entry, &data, location_path) == MMDB_SUCCESS && data.has_data &&
            data.type == MMDB_DATA_TYPE_MAP &&
            number_at(entry->mmdb, data.offset, "latitude", &place->latitude) &&
            number_at(entry->mmdb, data.offset, "longitude", &place->longitude))
                place->located = located(place->latitude, place->longitude);
        if (!place->located)
                place->latitude = place->longitude = 0;
        if (MMDB_aget_value(entry, &data, country_path) == MMDB_SUCCESS && data.has_data &&
            data.type == MMDB_DATA_TYPE_UTF8_STRING && data.data_size == 2)
                memcpy(place->country, data.utf8_string, 2);
}

static uint64_t load(const _Atomic uint64_t *word)
{
        return atomic_load_explicit(word, memory_order_relaxed);
}

static void store(_Atomic uint64_t *word, uint64_t value)
{
        atomic_store_explicit(word, value, memory_order_relaxed);
}

/* Multipliers of splitmix64: any two odd numbers with well mixed bits would do. */
static uint64_t cache_check(uint64_t key, uint64_t coordinates)
{
        uint64_t mixed = key * 0xbf58476d1ce4e5b9u;
        mixed ^= mixed >> 31;
        return (mixed ^ coordinates) * 0x94d049bb133111ebu;
}

static struct cache_entry *cache_entry_of(struct cache_entry *cache, uint32_t offset)
{
        return &cache[(offset * 0x9e3779b1u) >> 20 & (CACHE_ENTRIES - 1)];
}

static bool cache_find(struct cache_entry *cache, uint32_t offset, struct geo_place *place)
{
        const struct cache_entry *entry = cache_entry_of(cache, offset);
        uint64_t key = load(&entry->key);
        uint64_t coordinates = load(&entry->coordinates);
        if ((uint32_t)key != offset || (key & CACHE_USED) == 0 ||
            load(&entry->check) != cache_check(key, coordinates))
                return false;
        place->located = (key & CACHE_LOCATED) != 0;
        place->latitude = (int32_t)(coordinates >> 32) / 1e6;
        place->longitude = (int32_t)(uint32_t)coordinates / 1e6;
        place->country[0] = (char)(key >> 40);
        place->country[1] = (char)(key >> 32);
        return true;
}

/* Writes also what was just read as it will be found, so that both are alike to the last bit. */
static void cache_put(struct cache_entry *cache, uint32_t offset, struct geo_place *place)
{
        struct cache_entry *entry = cache_entry_of(cache, offset);
        int32_t latitude = (int32_t)lrint(place->latitude * 1e6);
        int32_t longitude = (int32_t)lrint(place->longitude * 1e6);
        uint64_t coordinates = (uint64_t)(uint32_t)latitude << 32 | (uint32_t)longitude;
        uint64_t country = (uint64_t)(uint8_t)place->country[0] << 40 |
                           (uint64_t)(uint8_t)place->country[1] << 32;
        uint64_t key = CACHE_USED | (place->located ? CACHE_LOCATED : 0) | country | offset;
        place->latitude = latitude / 1e6;
        place->longitude = longitude / 1e6;
        store(&entry->key, key);
        store(&entry->coordinates, coordinates);
        store(&entry->check, cache_check(key, coordinates));
}

/* The leaf of the tree: its depth counts in the address family asked for. */
static struct geo_place leaf_find(const struct geo *geo, int slot,
                                  const struct geo_address *address)
{
        struct geo_place place = {0};
        const MMDB_s *database = &geo->databases[slot];
        struct cache_entry *cache = geo->caches[slot];
        unsigned depth = 0;
        uint32_t record;
        if (address->family == GEO_FAMILY_V4)
                record = tree_descend_v4(database, geo->shortcuts[slot], address->ip, &depth);
        else if (database->metadata.ip_version == 6)
                record = tree_descend(database, 0, address->ip, 128, &depth);
        else
                return place;
        place.prefix_len = (uint8_t)depth;

        /* Behind the nodes: one value for "nothing", 16 for the separator, then the data. */
        uint32_t nodes = database->metadata.node_count;
        if (record < nodes || record - nodes < 16 ||
            record - nodes - 16 >= database->data_section_size)
                return place;
        MMDB_entry_s entry = {.mmdb = database, .offset = record - nodes - 16};
        if (!cache_find(cache, entry.offset, &place)) {
                place_read(&entry, &place);
                cache_put(cache, entry.offset, &place);
        }
        return place;
}

struct geo_place geo_find(struct geo *geo, unsigned shard, const struct geo_address *address)
{
        struct geo_place place = {0};
        if (address->family == GEO_FAMILY_NONE)
                return place;
        int slot = swap_enter(&geo->swap, shard);
        if (slot == SWAP_NONE)
                return place;

        struct geo_address inner;
        unsigned bits = 0;
        if (address->family == GEO_FAMILY_V4) {
                place = leaf_find(geo, slot, address);
        } else if (embedded(address, &inner, &bits)) {
                place = leaf_find(geo, slot, &inner);
                place.prefix_len = (uint8_t)(place.prefix_len + bits);
        } else {
                place = leaf_find(geo, slot, address);
                if (place.prefix_len < bits)
                        place.prefix_len = (uint8_t)bits;
        }
        swap_leave(&geo->swap, shard, slot);
        return place;
}

bool geo_address_parse(const char *text, struct geo_address *ret)
{
        struct geo_address address = {0};
        if (inet_pton(AF_INET, text, address.ip) == 1)
                address.family = GEO_FAMILY_V4;
        else if (inet_pton(AF_INET6, text, address.ip) == 1)
                address.family = GEO_FAMILY_V6;
        else
                return false;
        *ret = address;
        return true;
}

struct geo_address geo_address_of(const struct sockaddr *address)
{
        struct geo_address result = {0};
        if (address->sa_family == AF_INET) {
                struct sockaddr_in v4;
                memcpy(&v4, address, sizeof v4);
                result.family = GEO_FAMILY_V4;
                memcpy(result.ip, &v4.sin_addr, 4);
        } else if (address->sa_family == AF_INET6) {
                struct sockaddr_in6 v6;
                memcpy(&v6, address, sizeof v6);
                result.family = GEO_FAMILY_V6;
                memcpy(result.ip, &v6.sin6_addr, 16);
        }
        return result;
}
