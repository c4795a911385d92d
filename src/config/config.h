/* config.h - the daemon's configuration file: keys, ranges and errors.
 *
 * The syntax is libucl's nginx-like one: `key value;` or `key = value;`, sections `name { ... }`,
 * comments after '#'. Values are bare words or quoted strings. Every key:
 *
 *   cluster     lab;                  name of the cluster, as in the certificates
 *   region      us-east;              region of this node, as in the topology
 *   node        1;                    number of this node, as in the topology
 *   topology    /path/topology.conf;  used until the council has agreed on one
 *   data_dir    /path/data;           journals; created where missing
 *   run_dir     /path/run;            the view; created where missing
 *   pki {
 *       ca      /path/ca.crt;
 *       cert    /path/node.crt;
 *       key     /path/node.key;
 *       crl     /path/ca.crl;         optional
 *   }
 *   listen {
 *       link    127.10.0.1:7401;
 *       admin   127.10.0.1:7400;
 *       locks   127.10.0.1:7402;
 *   }
 *   redis       127.10.0.1:6379;      optional, like dns and edge: a region may use only a part
 *   redis {                           instead of it, where the region has more than one server
 *       node 127.10.0.1:6379;         up to 16: some servers of a Redis Cluster; or a primary and
 *                                     its replicas; or with `master` the sentinels
 *       cluster on;                   they are a Redis Cluster
 *       master mymaster;              the name by which the sentinels know the primary
 *       password /path/file;          where the servers want one (not the sentinels); only the
 *                                     daemon's user may read the file
 *       user meridian;                with password: of the servers' access list; else `default`
 *       tls on;                       to all of them, sentinels included, with these files in PEM:
 *       ca /path/ca.crt;              the authority of the servers' certificates
 *       cert /path/client.crt;        both or none: ours, where the servers want one, and its key,
 *       key /path/client.key;         which only the daemon's user may read
 *   }
 *   postgres {                        optional: this node's server of the PostgreSQL cluster
 *       server  127.10.0.1:5434;      where it listens
 *       write   127.10.0.1:5432;      the door to whichever server takes writes; optional
 *       read    127.10.0.1:5433;      the door to the nearest one that may be read; optional
 *       follow  127.10.0.1:5435;      the door to the server that this one follows; optional
 *       connections 500;              at most so many by each door, 1 to 10000
 *       wait    10000;                ms that a connection waits for a server, 1 to 600000
 *       read_lag 10000;               ms that a server may lag behind to be read, 1 to 86400000
 *       home     /path/postgres;      given: the daemon starts the server and looks after it
 *                                     (warden/warden.h), and keeps there what it needs for that
 *       bin      /usr/lib/postgresql/15/bin;   with home: the folder of PostgreSQL's programs
 *       password /path/file;          with home: of the role meridian_replication, the same on
 *                                     all nodes
 *       data     /path/pgdata;        the server's data; optional: home/data
 *       user     postgres;            the server's user, where the daemon is root
 *       library  /path/meridian.so;   the extension; optional: as PostgreSQL finds it
 *       init     /path/init.sql;      optional: run once in a new cluster
 *       settings /path/more.conf;     optional: settings for the server
 *       archive  /path/archive;       optional: where finished WAL is kept
 *       adopt    /etc/postgresql/15/main;  optional: the configuration of a server to take over
 *       keep     3;                   former data folders that are kept aside, 1 to 100
 *   }
 *   dns         127.10.0.1:5353;
 *   edge        127.10.0.1:8080;
 *   geo         /path/geo.mmdb;       optional
 *   log_level   info;                 error, warn, info or debug; optional
 *   level       1;                    optional: speak as a build that knows no more than this level
 *                                     (council/council.h), so that a step back stays possible
 *   lab {
 *       impairments on;               allow delay, loss and cuts by the admin door; optional, off
 *       hasty on;                     new data of PostgreSQL is not synced to disk; optional, off
 *   }
 *
 * docs/man/meridiand.conf.5 says it for users; a test compares.
 *
 * An unknown key, a key given twice, a missing one or a bad value is an error that names the file,
 * the line, the key and what to do. Addresses are IP addresses: 127.0.0.1:7401 or [::1]:7401. */
#ifndef MERIDIAN_CONFIG_CONFIG_H
#define MERIDIAN_CONFIG_CONFIG_H

#include "base/bytes.h"
#include "base/err.h"
#include "base/log.h"

#define CONFIG_TEXT_MAX  1024 /* a path with its NUL */
#define CONFIG_HOST_MAX  64
#define CONFIG_NODES_MAX 16

struct config_address {
        char host[CONFIG_HOST_MAX]; /* empty: not given */
        uint16_t port;
};

struct config_nodes {
        struct config_address items[CONFIG_NODES_MAX];
        size_t count;
};

/* As in warden/warden.h; `home` empty: somebody else looks after the server, or there is none. */
struct config_warden {
        char bin[CONFIG_TEXT_MAX];
        char home[CONFIG_TEXT_MAX];
        char password[CONFIG_TEXT_MAX];
        char data[CONFIG_TEXT_MAX];
        char user[64];
        char library[CONFIG_TEXT_MAX];
        char init[CONFIG_TEXT_MAX];
        char settings[CONFIG_TEXT_MAX];
        char archive[CONFIG_TEXT_MAX];
        char adopt[CONFIG_TEXT_MAX];
        uint32_t keep;
};

struct config {
        char cluster[64];
        char region[64];
        uint32_t node;
        char topology[CONFIG_TEXT_MAX];
        char data_dir[CONFIG_TEXT_MAX];
        char run_dir[CONFIG_TEXT_MAX];
        char pki_ca[CONFIG_TEXT_MAX];
        char pki_cert[CONFIG_TEXT_MAX];
        char pki_key[CONFIG_TEXT_MAX];
        char pki_crl[CONFIG_TEXT_MAX]; /* empty: none */
        char geo[CONFIG_TEXT_MAX];     /* empty: none */
        struct config_address link;
        struct config_address admin;
        struct config_address locks;
        struct config_address redis;
        struct config_nodes redis_nodes;      /* count 0: none */
        char redis_master[64];                /* empty: none */
        char redis_user[64];                  /* empty: `default` */
        char redis_password[CONFIG_TEXT_MAX]; /* a file; empty: none */
        bool redis_cluster;
        bool redis_tls;
        char redis_ca[CONFIG_TEXT_MAX]; /* with redis_tls; the other two may be empty */
        char redis_cert[CONFIG_TEXT_MAX];
        char redis_key[CONFIG_TEXT_MAX];
        struct config_address postgres; /* empty: none */
        struct config_address postgres_write;
        struct config_address postgres_read;
        struct config_address postgres_follow;
        uint32_t postgres_connections; /* 0 here and below: not given */
        uint32_t postgres_wait_ms;
        uint32_t postgres_read_lag_ms;
        struct config_address dns;
        struct config_address edge;
        struct config_warden warden;
        enum log_level log_level;
        uint32_t level; /* 0: not given */
        bool impairments;
        bool hasty; /* what is made anew is not synced */
};

struct config_error {
        char text[1024];
};

/* Parses a whole file's text; `path` is for errors only. Relative paths in it are meant from the
 * folder of `path`. ERR_MALFORMED or ERR_INVALID with a text. */
MUST_USE enum err config_parse(struct bytes text, const char *path, struct config *ret_config,
                               struct config_error *error);

/* Reads and parses. ERR_NOT_FOUND, ERR_IO, and as above. */
MUST_USE enum err config_load(const char *path, struct config *ret_config,
                              struct config_error *error);

#endif
