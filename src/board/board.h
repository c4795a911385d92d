/* board.h - what every program of a region may read at any time: feature flags, configuration and
 * services. They are values of the global group (kv/kv.h); each node writes them all into a page,
 * a part of its view, where they are looked up in place: no copy, no allocation, no majority.
 *
 *   global:flag/NAME             a flag's rules, as text
 *   global:config/NAME           any bytes
 *   global:service/NAME/ID       an instance, as text
 *
 * A flag is text of statements with ';' or a newline between them:
 *
 *   killed                       off for everybody, whatever else is said
 *   salt WORD                    what users are spread by; the flag's name where it is not said
 *   when ATTRIBUTE is VALUE [and ATTRIBUTE is VALUE]... SHARE
 *   otherwise SHARE              off where it is not said
 *
 * `is` may be `is-not` or `begins`. A SHARE is `on`, `off` or a percentage with up to two decimals,
 * "2.5%". A VALUE with blanks stands in double quotes. The first `when` that fits decides. The
 * attributes `user` and `region` are always there (empty where they are not known); one that is not
 * there fits `is-not` only. A user is in a share by a hash of salt and user alone: the same
 * everywhere and at any time, and who is in 10 % is also in 20 %.
 *
 * An instance is "ADDRESS:PORT [region NAME] [weight N]"; an address of IPv6 stands in brackets.
 *
 * Costs: a look-up O(log n), some 100 ns; to evaluate, O(rules). */
#ifndef MERIDIAN_BOARD_BOARD_H
#define MERIDIAN_BOARD_BOARD_H

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/err.h"

#define BOARD_BYTES_MAX      ((size_t)128 * 1024) /* of a page */
#define BOARD_NAME_MAX       128                  /* of a flag or a key of the configuration */
#define BOARD_LABEL_MAX      63                   /* of a service, an instance */
#define FLAG_TEXT_BYTES_MAX  4096
#define FLAG_RULES_MAX       32
#define FLAG_CONDITIONS_MAX  8
#define FLAG_SHARE_ALL       10000 /* shares are in hundredths of a per cent */
#define FLAG_WHY_SIZE        160

#define BOARD_FLAG_PREFIX    "global:flag/"
#define BOARD_CONFIG_PREFIX  "global:config/"
#define BOARD_SERVICE_PREFIX "global:service/"

/* ---- flags ---- */

/* Text to what is evaluated; appended to `out`. On an error (ERR_MALFORMED, ERR_LIMIT, ERR_NOMEM)
 * `why`, if not NULL, is a sentence, and what was appended is of no use. */
MUST_USE enum err flag_compile(struct bytes name, struct bytes text, struct buffer *out,
                               char why[FLAG_WHY_SIZE]);

/* Is this whole? Whatever passes can be evaluated. */
bool flag_valid(struct bytes compiled);

struct flag_attribute {
        struct bytes name;
        struct bytes value;
};

struct flag_client {
        struct bytes user;
        struct bytes region;
        const struct flag_attribute *attributes; /* others */
        size_t attribute_count;
};

enum flag_reason {
        FLAG_KILLED,
        FLAG_RULE, /* `rule` decided */
        FLAG_OTHERWISE,
};

struct flag_verdict {
        bool on;
        enum flag_reason reason;
        unsigned rule;   /* from 1 */
        uint32_t share;  /* of the rule */
        uint32_t bucket; /* of the user: on where it is less than the share */
};

/* For a compiled flag that flag_valid has passed. Pure; no allocation. */
struct flag_verdict flag_evaluate(struct bytes compiled, const struct flag_client *client);

/* The bucket of a user, 0 to FLAG_SHARE_ALL - 1: SipHash-1-3 of salt, a zero byte and the user,
 * under a key that is part of this format. */
uint32_t flag_bucket(struct bytes salt, struct bytes user);

/* ---- services ---- */

struct board_service {
        struct bytes name;
        struct bytes id;
        struct bytes region; /* empty: not said */
        uint8_t family;      /* 4 or 6 */
        uint8_t address[16];
        uint16_t port;
        uint16_t weight;
};

/* `key` is "NAME/ID". ERR_MALFORMED. */
MUST_USE enum err board_service_parse(struct bytes key, struct bytes text,
                                      struct board_service *ret);

/* a-z, 0-9 and '-' inside: a label of the DNS. */
bool board_label_valid(struct bytes label);

/* ---- the page ---- */

enum board_kind {
        BOARD_FLAGS, /* values are compiled flags */
        BOARD_CONFIG,
        BOARD_SERVICES, /* names are "NAME/ID", values texts */
        BOARD_KINDS,
};

struct board_list {
        struct bytes offsets; /* u32 each, into `items` */
        struct bytes items;   /* slices name, value each */
        uint32_t count;
};

struct board {
        uint64_t revision; /* of the values */
        bool cut;          /* not all of them had room */
        struct board_list lists[BOARD_KINDS];
};

/* A page in the making. */
struct board_build {
        struct buffer offsets[BOARD_KINDS];
        struct buffer items[BOARD_KINDS];
        size_t bytes;
        bool cut;
};

/* Keeps `heap`. */
void board_build_init(struct board_build *build, struct heap *heap);
void board_build_fini(struct board_build *build);
/* In the order of names within a kind. What has no room is left out, and `cut` set. */
void board_build_add(struct board_build *build, enum board_kind kind, struct bytes name,
                     struct bytes value);
/* Appends the page. ERR_NOMEM. */
MUST_USE enum err board_build_end(const struct board_build *build, uint64_t revision,
                                  struct buffer *out);

/* Reads a page, which is borrowed; all of it is checked. ERR_TRUNCATED, ERR_MALFORMED,
 * ERR_VERSION. */
MUST_USE enum err board_open(struct bytes page, struct board *ret);

/* False: there is none of that name. */
bool board_find(const struct board *board, enum board_kind kind, struct bytes name,
                struct bytes *ret_value);
/* The i-th by name; false at the end. */
bool board_at(const struct board *board, enum board_kind kind, uint32_t i, struct bytes *ret_name,
              struct bytes *ret_value);
/* The first instance of a service; the others follow it, as long as board_service_at tells the
 * same name. */
uint32_t board_service_first(const struct board *board, struct bytes name);
bool board_service_at(const struct board *board, uint32_t i, struct board_service *ret);

/* ---- from the values of the global group ---- */

struct kv;

/* Appends a page of all that there is. `refused` (of FLAG_WHY_SIZE) is a sentence about the first
 * value that is left out as it cannot be read; empty: there is none. ERR_NOMEM. */
MUST_USE enum err board_collect(const struct kv *kv, struct heap *heap, struct buffer *out,
                                bool *ret_cut, char refused[FLAG_WHY_SIZE]);

#endif
