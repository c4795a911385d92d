/* view_format.h - the layout of the view's file. Private to the room.
 *
 *   offset  size
 *        0     8  magic "MERIVIEW"
 *        8     4  VIEW_FORMAT_VERSION, in the machine's byte order, as all below
 *       12     4  VIEW_BYTE_ORDER
 *       16     8  size of the file
 *       24     8  size of a slot
 *       32     4  CRC-32C of the 32 bytes before
 *       64     8  published: the generation that is valid, in slot generation % 2; 0: none yet
 *     4096        slot 0
 *  + slot size    slot 1
 *
 * A slot: the sequence (its generation, 0 while it is written), the payload's length, the CRC-32C
 * of sequence and payload, length and CRC-32C (with the sequence) of the page, and at
 * VIEW_SLOT_HEADER the payload, little-endian (view_code.c), then, at the next multiple of 8, the
 * page (board/board.h). Readers that know of no page find all else as before. A page with another
 * sequence or a wrong checksum is none: whoever knew of no page wrote after one who did.
 *
 * Writing generation g, into the slot that is not published: sequence = 0, payload, length,
 * checksum, sequence = g, published = g; each step is visible only after those before it. A writer
 * that dies anywhere leaves the published slot whole. Reading: published = p, sequence must be p,
 * copy, sequence must still be p, then the checksum. A slot is overwritten only after its successor
 * was published, so a sequence that is not p while published still is p is damage. */
#ifndef MERIDIAN_VIEW_VIEW_FORMAT_H
#define MERIDIAN_VIEW_VIEW_FORMAT_H

#include "base/buffer.h"
#include "base/hash.h"
#include "view/view.h"

#include <stdatomic.h>

#define VIEW_FORMAT_VERSION 1u
#define VIEW_BYTE_ORDER     0x01020304u
#define VIEW_HEADER_SIZE    4096u
#define VIEW_SLOT_HEADER    64u
#define VIEW_FILE_SIZE      (VIEW_HEADER_SIZE + (size_t)2 * VIEW_SLOT_SIZE)
#define VIEW_PAYLOAD_MAX    (VIEW_SLOT_SIZE - VIEW_SLOT_HEADER)

struct view_header {
        uint8_t magic[8];
        uint32_t version;
        uint32_t byte_order;
        uint64_t file_size;
        uint64_t slot_size;
        uint32_t crc;
        uint8_t reserved[28];
        _Atomic uint64_t published;
};

struct view_slot {
        _Atomic uint64_t sequence;
        _Atomic uint64_t len;
        _Atomic uint64_t crc;
        _Atomic uint64_t page_len;
        _Atomic uint64_t page_crc;
        uint64_t reserved[3];
        _Atomic uint64_t words[VIEW_PAYLOAD_MAX / 8];
};

/* The whole file, as it is mapped. */
struct view_file {
        struct view_header header;
        uint8_t reserved[VIEW_HEADER_SIZE - sizeof(struct view_header)];
        struct view_slot slots[2];
};

_Static_assert(offsetof(struct view_header, published) == 64, "the layout is fixed");
_Static_assert(offsetof(struct view_slot, words) == VIEW_SLOT_HEADER, "the layout is fixed");
_Static_assert(sizeof(struct view_slot) == VIEW_SLOT_SIZE, "the layout is fixed");
_Static_assert(sizeof(struct view_file) == VIEW_FILE_SIZE, "the layout is fixed");
_Static_assert(sizeof(_Atomic uint64_t) == 8 && ATOMIC_LLONG_LOCK_FREE == 2,
               "readers map the file read-only, so loads must need no lock");

/* Is this the header of a file of `file_size` bytes that can be read? Else which error, and why. */
MUST_USE enum err view_header_check(const struct view_header *header, uint64_t file_size,
                                    const char **ret_why);

/* The checksum of a slot. */
uint32_t view_slot_crc(uint64_t sequence, struct bytes payload);

/* Where the page begins, behind a payload of `len` bytes. */
static inline size_t view_page_at(size_t len)
{
        return (len + 7) & ~(size_t)7;
}

/* Copies what is published into `payload` (VIEW_PAYLOAD_MAX bytes), with the page, whose length is
 * 0 where there is none (or a damaged one), at view_page_at. ERR_NOT_FOUND: nothing yet.
 * ERR_BUSY: it was overwritten several times meanwhile. ERR_CORRUPT. */
MUST_USE enum err view_slot_copy(const struct view_file *file, uint8_t *payload, size_t *ret_len,
                                 size_t *ret_page_len, uint64_t *ret_generation,
                                 const char **ret_why);

/* Appends the payload. ERR_INVALID, ERR_NOMEM. */
MUST_USE enum err view_encode(const struct view_content *content, struct buffer *out);

/* Reads a payload; all of it is checked. On an error *ret is in no useful
 * state. ERR_TRUNCATED, ERR_MALFORMED. */
MUST_USE enum err view_decode(struct bytes payload, uint64_t generation, struct view *ret);

#endif
