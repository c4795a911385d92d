/* hash.c - the hashes of hash.h, by the papers that it names. Nothing fails. */
#include "base/hash.h"

/* Nibble table of the reflected polynomial 0x82f63b78. */
static const uint32_t crc_nibble[16] = {
        0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
        0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
        0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
};

#if defined(__x86_64__)
/* The same by the instruction that processors since 2008 have for it. */
__attribute__((target("sse4.2"))) static uint32_t crc_machine(uint32_t crc, struct bytes data)
{
        uint64_t wide = crc;
        size_t at = 0;
        for (; data.len - at >= 8; at += 8)
                wide = __builtin_ia32_crc32di(wide, bytes_u64(data.ptr + at));
        crc = (uint32_t)wide;
        for (; at < data.len; at++)
                crc = __builtin_ia32_crc32qi(crc, data.ptr[at]);
        return crc;
}
#endif

uint32_t hash_crc32c(uint32_t crc, struct bytes data)
{
        crc = ~crc;
#if defined(__x86_64__)
        if (__builtin_cpu_supports("sse4.2"))
                return ~crc_machine(crc, data);
#endif
        for (size_t i = 0; i < data.len; i++) {
                crc ^= data.ptr[i];
                crc = crc >> 4 ^ crc_nibble[crc & 15];
                crc = crc >> 4 ^ crc_nibble[crc & 15];
        }
        return ~crc;
}

static uint64_t rotate_left(uint64_t value, unsigned by)
{
        return value << by | value >> (64 - by);
}

__attribute__((always_inline)) static inline void sip_round(uint64_t v[4])
{
        v[0] += v[1];
        v[1] = rotate_left(v[1], 13) ^ v[0];
        v[0] = rotate_left(v[0], 32);
        v[2] += v[3];
        v[3] = rotate_left(v[3], 16) ^ v[2];
        v[0] += v[3];
        v[3] = rotate_left(v[3], 21) ^ v[0];
        v[2] += v[1];
        v[1] = rotate_left(v[1], 17) ^ v[2];
        v[2] = rotate_left(v[2], 32);
}

/* The last bytes, fewer than eight, of data that begins `before` bytes earlier. */
static uint64_t load_tail(const uint8_t *at, size_t len, size_t before)
{
        if (len == 0)
                return 0;
        if (before >= 8 - len)
                return bytes_u64(at + len - 8) >> (8 * (8 - len));
        uint64_t value = 0;
        for (size_t i = len; i > 0; i--)
                value = value << 8 | at[i - 1];
        return value;
}

uint64_t hash_sip(struct hash_key key, struct bytes data)
{
        uint64_t v[4] = {key.k0 ^ 0x736f6d6570736575u, key.k1 ^ 0x646f72616e646f6du,
                         key.k0 ^ 0x6c7967656e657261u, key.k1 ^ 0x7465646279746573u};
        size_t at = 0;
        for (; data.len - at >= 8; at += 8) {
                uint64_t word = bytes_u64(data.ptr + at);
                v[3] ^= word;
                sip_round(v);
                v[0] ^= word;
        }
        uint64_t tail = load_tail(data.ptr + at, data.len - at, at) | (uint64_t)data.len << 56;
        v[3] ^= tail;
        sip_round(v);
        v[0] ^= tail;
        v[2] ^= 0xff;
        for (int i = 0; i < 3; i++)
                sip_round(v);
        return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#ifdef __SIZEOF_INT128__
static inline uint64_t fold(uint64_t a, uint64_t b)
{
        __extension__ unsigned __int128 product = (unsigned __int128)a * b;
        return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t load_half(const uint8_t *at)
{
        uint32_t half;
        memcpy(&half, at, sizeof half);
        return half;
}

uint64_t hash_fold(struct hash_key key, struct bytes data)
{
        const uint64_t odd = 0x9e3779b97f4a7c15u;
        uint64_t state = key.k0 ^ data.len * odd;
        const uint8_t *at = data.ptr;
        uint64_t first = 0;
        uint64_t last = 0;
        if (data.len > 16) {
                const uint8_t *end = at + data.len;
                for (; end - at > 16; at += 16)
                        state = fold(bytes_u64(at) ^ key.k1, bytes_u64(at + 8) ^ state);
                first = bytes_u64(end - 16);
                last = bytes_u64(end - 8);
        } else if (data.len >= 8) {
                first = bytes_u64(at);
                last = bytes_u64(at + data.len - 8);
        } else if (data.len >= 4) {
                first = load_half(at);
                last = load_half(at + data.len - 4);
        } else if (data.len > 0) {
                first = (uint64_t)at[0] << 16 | (uint64_t)at[data.len / 2] << 8 | at[data.len - 1];
        }
        return fold(fold(first ^ key.k1, last ^ state) ^ key.k0, odd ^ key.k1);
}
#else
uint64_t hash_fold(struct hash_key key, struct bytes data)
{
        return hash_sip(key, data);
}
#endif

uint64_t hash_fnv(uint64_t hash, struct bytes data)
{
        for (size_t i = 0; i < data.len; i++)
                hash = (hash ^ data.ptr[i]) * 0x100000001b3u;
        return hash;
}

uint64_t hash_fnv_u64(uint64_t hash, uint64_t value)
{
        for (unsigned i = 0; i < 64; i += 8)
                hash = (hash ^ (value >> i & 0xff)) * 0x100000001b3u;
        return hash;
}
