/* load.h - what the two doors of the load generator share: clients that each ask for one thing
 * after the other, and the loop that carries their bytes. */
#ifndef MERIDIAN_BENCH_LOAD_H
#define MERIDIAN_BENCH_LOAD_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum load_step {
        LOAD_SETUP,   /* once: what a client needs before it begins */
        LOAD_ACQUIRE, /* or a put */
        LOAD_RELEASE, /* or a get */
        LOAD_STEP_COUNT,
};

struct load_client {
        uint32_t index;
        enum load_step step; /* under way */
        uint64_t began_ns;
        uint64_t token;  /* of the lock held; of etcd: the id of its lease */
        char owned[128]; /* etcd's name of the lock held */
        size_t owned_len;
        char key[64];
        struct load_conn *conn;
};

/* A connection, with the bytes that wait to be written. */
struct load_conn {
        int fd;
        uint8_t *out;
        size_t out_len, out_size, out_sent;
        bool dirty;  /* to be written at the end of the turn */
        bool polled; /* also waits until it can be written */
        void *door;
        struct load_client *client; /* RESP: the only one */
};

struct load_door {
        const char *name;
        uint32_t (*conn_count)(uint32_t clients, uint32_t conns);
        void (*open)(struct load_conn *conn);
        void (*ask)(struct load_client *client);
        void (*came)(struct load_conn *conn, const uint8_t *data, size_t len);
        void (*fill)(struct load_conn *conn); /* before a turn's bytes leave; may be NULL */
        bool setup;                           /* LOAD_SETUP has to be asked */
};

extern const struct load_door load_resp;
extern const struct load_door load_etcd;
extern const struct load_door load_etcd_txn;
extern const struct load_door load_resp_values;
extern const struct load_door load_etcd_values;
extern const struct load_door load_resp_reads;
extern const struct load_door load_etcd_reads;
extern const struct load_door load_resp_stale;
extern const struct load_door load_etcd_stale;

/* The one in use. */
extern const struct load_door *load_door;

/* Called by a door: bytes to send; the answer to what the client asked. */
void load_write(struct load_conn *conn, const void *data, size_t len);
void load_answered(struct load_client *client, bool good);
_Noreturn void load_die(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
