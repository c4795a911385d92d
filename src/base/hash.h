/* hash.h - checksums and hashes. CRC-32C (Castagnoli, RFC 3720 B.4) for what is stored;
 * SipHash-1-3 (Aumasson and Bernstein, 2012) for what outsiders choose; a third of its cost, folded
 * multiplications for tables that are looked into at every write; FNV-1a for trace hashes. */
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

/* A hash under a secret, random key, for a table in memory whose keys an outsider chooses and whose
 * hashes and order are told to no outsider: words of 64 bits are multiplied with parts of the key
 * and with one another, and both halves of each product are kept (the idea of Wang Yi's wyhash).
 * Who does not know the key cannot choose collisions; who sees hashes may learn it: hash_sip stands
 * that. Not the same on all machines. */
uint64_t hash_fold(struct hash_key key, struct bytes data);

/* FNV-1a, continued from `hash` (HASH_FNV_START to begin). */
#define HASH_FNV_START 0xcbf29ce484222325u
uint64_t hash_fnv(uint64_t hash, struct bytes data);
uint64_t hash_fnv_u64(uint64_t hash, uint64_t value);

#endif
