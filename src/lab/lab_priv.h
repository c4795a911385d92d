/* lab_priv.h - what the files of this room share. */
#ifndef MERIDIAN_LAB_LAB_PRIV_H
#define MERIDIAN_LAB_LAB_PRIV_H

#include "base/buffer.h"
#include "lab/lab.h"

#include <stdio.h>
#include <sys/types.h>

#define LAB_PATH_MAX     1024

#define LAB_CLUSTER      "lab"
#define LAB_NODES_MAX    3
#define LAB_ADDRESS_SIZE 32

/* What runs in a region, in the order in which it is started. */
enum lab_part {
        LAB_REDIS,
        LAB_BACKEND_1,
        LAB_BACKEND_2,
        LAB_MERIDIAND,
        LAB_KNOT,
        LAB_NGINX,
        LAB_NODE_2, /* more nodes: a daemon alone */
        LAB_NODE_3,
        LAB_PARTS,
};

struct lab_wan;

/* Where things are. Filled by lab_open. */
struct lab {
        char root[LAB_PATH_MAX]; /* the checkout */
        char dir[LAB_PATH_MAX];  /* root/.lab */
        char self[LAB_PATH_MAX]; /* this executable */
        char programs[LAB_PARTS][LAB_PATH_MAX];
        char plugin_redis[LAB_PATH_MAX];
        char plugin_knot[LAB_PATH_MAX];
        char plugin_nginx[LAB_PATH_MAX];
        char plugin_postgres[LAB_PATH_MAX];
        unsigned nodes;   /* in each region, 1 .. LAB_NODES_MAX */
        unsigned servers; /* of PostgreSQL in each region, on its first nodes; 1 .. nodes */
        bool witness;     /* the last region only votes: one daemon, nothing else */
};

/* Says on stderr what is wrong, where and what to do. Returns false,
 * for `return lab_error(...)`. */
bool lab_error(const char *format, ...) PRINTF_LIKE(1, 2);

/* Prints one step that is done: `what` in a column, then the rest. */
void lab_step(const char *what, const char *format, ...) PRINTF_LIKE(2, 3);

/* Draws what is being waited for: on a terminal in one line that is drawn again, else once for each
 * new text. lab_waited ends it. */
void lab_waiting(const char *format, ...) PRINTF_LIKE(1, 2);
void lab_waited(void);

/* Writes a path; false, said on stderr, where it is too long. */
MUST_USE bool lab_path(char *path, const char *format, ...) PRINTF_LIKE(2, 3);

/* Milliseconds of the monotonic clock. */
uint64_t lab_now_ms(void);
void lab_sleep_ms(unsigned ms);

const struct lab_region *lab_region_find(const char *name);

static inline bool lab_is_witness(const struct lab *lab, const struct lab_region *region)
{
        return lab->witness && region == &lab_regions[LAB_REGIONS - 1];
}

/* How many nodes a region of this lab has. */
static inline unsigned lab_nodes_of(const struct lab *lab, const struct lab_region *region)
{
        return lab_is_witness(lab, region) ? 1 : lab->nodes;
}

/* Does this part belong to the region? */
static inline bool lab_part_used(const struct lab *lab, const struct lab_region *region,
                                 enum lab_part part)
{
        if (lab_is_witness(lab, region))
                return part == LAB_MERIDIAND;
        return part < (enum lab_part)(LAB_NODE_2 + lab->nodes - 1);
}

/* Of all regions. */
unsigned lab_part_count(const struct lab *lab);

/* ---- lab_ground.c ---- */

int lab_usage(const char *command); /* says it on stderr; the exit status */
size_t lab_region_index(const struct lab_region *region);

/* All say on stderr what is wrong. */
MUST_USE bool lab_open(struct lab *lab);
MUST_USE bool lab_open_made(struct lab *lab); /* one that `lab up` has made */
MUST_USE bool lab_programs_find(struct lab *lab);
MUST_USE bool lab_disk_check(const struct lab *lab);
MUST_USE bool lab_owner_check(const struct lab *lab);

/* One command at a time. The lock goes when the process ends. */
MUST_USE bool lab_lock_take(const struct lab *lab);

/* ---- lab_run.c; `region` NULL: all ---- */

unsigned lab_alive_count(const struct lab *lab, const struct lab_region *region);

/* Returns how many were signalled; 0 counts. */
int lab_signal_all(const struct lab *lab, const struct lab_region *region, int signal);

/* Ends what runs: kindly, then not. True where nothing is left. */
bool lab_stop_all(const struct lab *lab, const struct lab_region *region);

/* Starts what is missing in a region. */
MUST_USE bool lab_region_start(const struct lab *lab, const struct lab_region *region);

/* Tells a region that has just been started how its links are, as soon as it answers. */
MUST_USE bool lab_region_wan(const struct lab *lab, const struct lab_wan *wan,
                             const struct lab_region *region);

/* The commands, of lab_run.c, lab_up.c and lab_links.c: exit status. */
int lab_command_up(int argc, char **argv);
int lab_command_down(int argc, char **argv);
int lab_command_kill(int argc, char **argv);
int lab_command_start(int argc, char **argv);
int lab_command_partition(int argc, char **argv);
int lab_command_heal(int argc, char **argv);
int lab_command_slow(int argc, char **argv);
int lab_command_lose(int argc, char **argv);

/* Prints each link, a line each. */
void lab_links_print(const struct lab *lab);

/* ---- lab_nodes.c: regions of several nodes; `node` counts from 1 ---- */

unsigned lab_node_id(size_t region, unsigned node);
void lab_node_address(const struct lab_region *region, unsigned node, char text[LAB_ADDRESS_SIZE]);
enum lab_part lab_node_part(unsigned node);
MUST_USE bool lab_nodes_load(struct lab *lab);
/* Before the first start; else said on stderr. A witness stays one. */
MUST_USE bool lab_nodes_use(struct lab *lab, unsigned nodes, unsigned servers, bool witness);
MUST_USE bool lab_node_certificate(const struct lab *lab, size_t region, unsigned node);
/* Issues a certificate for a node that a person adds, and prints its folder. Exit status. */
int lab_certificate(const struct lab *lab, const char *region, const char *number);
void lab_node_topology(size_t region, unsigned node, struct buffer *text);
MUST_USE bool lab_node_files(const struct lab *lab, size_t region, unsigned node,
                             struct buffer *text);
/* "us-east" (node 0: all of it) or "us-east/2". */
MUST_USE bool lab_node_find(const struct lab *lab, const char *text,
                            const struct lab_region **ret_region, unsigned *ret_node);

/* ---- lab_files.c: everything under .lab but what the servers write ---- */

/* Makes folders, certificates, the geo database, the topology, the zone and every configuration
 * file. What is there already and must last (certificates, data) is kept. */
MUST_USE bool lab_files_write(const struct lab *lab);

/* Makes `dir` where missing, 0755. */
MUST_USE bool lab_dir_make(const char *dir);

/* Replaces a file by rename. */
MUST_USE bool lab_file_write(const char *path, struct bytes data);

/* ---- lab_process.c: starting, finding and ending ---- */

/* "redis", "meridiand", ...: names of files and of what is printed. */
const char *lab_part_name(enum lab_part part);
const char *lab_part_program(enum lab_part part);

/* Is it there: the process whose pid and start time were written down. */
bool lab_process_alive(const struct lab *lab, const struct lab_region *region, enum lab_part part);

/* Its pid, or 0. */
pid_t lab_process_pid(const struct lab *lab, const struct lab_region *region, enum lab_part part);

/* Starts it in the background, in a session of its own, its output in the region's log folder. */
MUST_USE bool lab_process_start(const struct lab *lab, const struct lab_region *region,
                                enum lab_part part);

/* Sends SIGTERM or SIGKILL to it and to what it left behind. Returns how many were signalled. */
int lab_process_signal(const struct lab *lab, const struct lab_region *region, enum lab_part part,
                       int signal);

/* Prints the last lines of its log on stderr. */
void lab_process_log_show(const struct lab *lab, const struct lab_region *region,
                          enum lab_part part);

/* ---- lab_postgres.c: the region's PostgreSQL, which meridiand looks after ---- */

struct buffer;

/* Does this lab have PostgreSQL? It is so unless it was started without. */
bool lab_postgres_used(const struct lab *lab);
MUST_USE bool lab_postgres_use(const struct lab *lab, bool use);

/* Can it run here? Said on stderr where not. */
MUST_USE bool lab_postgres_check(const struct lab *lab);

/* Writes what the server of a region's node needs; `text` is room for it. */
MUST_USE bool lab_postgres_files(const struct lab *lab, const struct lab_region *region,
                                 unsigned node, struct buffer *text);

/* The section of meridiand.conf by which a node has the doors, and looks after a server. */
void lab_postgres_conf(const struct lab *lab, const struct lab_region *region, unsigned node,
                       struct buffer *text);

/* Signals what runs of the servers of a region (`node` 0: of all its nodes), their tools included;
 * SIGTERM: kindly, each postmaster alone. 0 counts. */
int lab_postgres_signal(const struct lab *lab, const struct lab_region *region, unsigned node,
                        int signal);

/* ---- lab_ports.c ---- */

/* True where every address and port that the parts not alive need is free; else each one in use is
 * told on stderr, with who has it where that can be seen. `region` NULL: all. */
MUST_USE bool lab_ports_free(const struct lab *lab, const struct lab_region *region);

/* ---- lab_wan.c: the wide area ---- */

struct lab_wan_pair {
        uint64_t slow_us; /* one way, on top of the wide area */
        uint32_t loss_per_mille;
        bool cut;
};

/* Between two regions, by index; each pair counts in both orders. */
struct lab_wan {
        struct lab_wan_pair pairs[LAB_REGIONS][LAB_REGIONS];
};

/* The wide area as it was last set; plain where nothing was. */
MUST_USE bool lab_wan_load(const struct lab *lab, struct lab_wan *ret_wan);
MUST_USE bool lab_wan_save(const struct lab *lab, const struct lab_wan *wan);

/* Round-trip time between two regions of the real world, in milliseconds. */
unsigned lab_wan_rtt_ms(size_t a, size_t b);

/* Tells region `from` (an index) how its links are; false where it does not answer
 * (said only when `loud`). */
MUST_USE bool lab_wan_apply(const struct lab *lab, const struct lab_wan *wan, size_t from,
                            bool loud);

/* ---- lab_health.c ---- */

/* Waits until everything that is alive in the lab is healthy; `region` NULL: and all of it is
 * alive. False, with the reason on stderr, after `timeout_ms` or when a process ended. */
MUST_USE bool lab_health_wait(const struct lab *lab, const struct lab_region *region,
                              unsigned timeout_ms);

/* What is not well in a region now, as a text for lab_waiting; empty: all is well. */
void lab_health_look(const struct lab *lab, const struct lab_region *region, char *ret_text,
                     size_t size);

/* ---- lab_backend.c ---- */

/* The sample backend: serves until it is signalled. */
int lab_backend(int argc, char **argv);

#endif
