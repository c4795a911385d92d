/* hash.h - checksums and hashes. CRC-32C (Castagnoli, RFC 3720 B.4) for what is stored;
 * SipHash-1-3 (Aumasson and Bernstein, 2012) for tables whose keys an outsider chooses;
 * FNV-1a for trace hashes. */
#ifndef MERIDIAN_BASE_HASH_H
#define MERIDIAN_BASE_HASH_H

#include "base/bytes.h"

struct hash_key {
        uint64_t k0;
        uint64_t k1;
};

/* CRC-32C of `data`, continued from `crc` (0 to begin). */
uint32_t hash_crc32c(uint32_t crc, struct bytes data);

/* SipHash-1-3 under a secret key. */
uint64_t hash_sip(struct hash_key key, struct bytes data);

/* FNV-1a, continued from `hash` (HASH_FNV_START to begin). */
#define HASH_FNV_START 0xcbf29ce484222325u
uint64_t hash_fnv(uint64_t hash, struct bytes data);
uint64_t hash_fnv_u64(uint64_t hash, uint64_t value);

#endif
