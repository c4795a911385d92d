/* warden_priv.h - what the files of this room share. All but warden.c runs in the warden's own
 * thread and may block; whatever waits there calls warden_pause or looks at `cancel`. */
#ifndef MERIDIAN_WARDEN_WARDEN_PRIV_H
#define MERIDIAN_WARDEN_WARDEN_PRIV_H

#include "base/buffer.h"
#include "primary/primary.h"
#include "warden/gate.h"
#include "warden/history.h"
#include "warden/warden.h"

#include <dirent.h>
#include <libpq-fe.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/types.h>

#define LOOK_EVERY_US  100000
#define WATCH_EVERY_US 10000
#define OUTS_MAX       32
#define ARCHIVE_FILES  64 /* kept in the archive; of 16 MB: a gigabyte */
#define ROLE           "meridian_replication"

/* What pg_rewind asks of the server that it reads from. */
#define GRANTS                                                                                     \
        "GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text, boolean, boolean), "                 \
        "pg_catalog.pg_stat_file(text, boolean), pg_catalog.pg_read_binary_file(text), "           \
        "pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean) TO " ROLE

/* A sentence about what failed. */
struct fail {
        char text[WARDEN_TEXT_SIZE];
};

/* Writes the sentence; returns false, for `return fail_set(...)`. */
bool fail_set(struct fail *fail, const char *format, ...) PRINTF_LIKE(2, 3);

/* From the thread to the loop. */
enum out_kind {
        OUT_SEEN,
        OUT_DONE,
        OUT_NOTE,
        OUT_PROBED,
};

struct out {
        enum out_kind kind;
        struct world_postgres seen;
        uint64_t number; /* DONE */
        bool healthy;    /* PROBED */
        const char *name;
        char text[WARDEN_TEXT_SIZE]; /* DONE: why it failed; NOTE, PROBED */
};

/* What the thread knows of the topology. */
struct peers {
        unsigned count;
        uint32_t sync;
        node_id ids[TOPOLOGY_POSTGRES_NODES_MAX];
        region_id regions[TOPOLOGY_POSTGRES_NODES_MAX];
        bool never[TOPOLOGY_POSTGRES_NODES_MAX];
        char names[TOPOLOGY_POSTGRES_NODES_MAX][TOPOLOGY_NAME_SIZE];
        char hosts[TOPOLOGY_POSTGRES_NODES_MAX][TOPOLOGY_ADDRESS_TEXT];
};

struct command {
        uint64_t number;
        enum primary_action action;
        node_id upstream;
        uint64_t epoch;
};

struct paths {
        char data[WARDEN_PATH_SIZE];
        char data_new[WARDEN_PATH_SIZE];
        char rewinding[WARDEN_PATH_SIZE]; /* while this file is there, the data is half rewound */
        char gate[WARDEN_PATH_SIZE];
        char socket[WARDEN_PATH_SIZE];
        char doors[WARDEN_PATH_SIZE]; /* where the server asks for its clients */
        char log[WARDEN_PATH_SIZE];
        char pgpass[WARDEN_PATH_SIZE];
        char hba[WARDEN_PATH_SIZE];
        char ident[WARDEN_PATH_SIZE];
        char aside[WARDEN_PATH_SIZE];
};

/* The result of a look at a server that does not run, good until its pg_control changes. */
struct stopped {
        bool known;
        int64_t changed_ns;
        uint64_t inode;
        struct history_control control;
        uint32_t timeline;
        uint64_t written;
        bool sure; /* the end of its log was read */
};

/* What a standby that does not stream has received and cannot replay: looked into once. */
struct remnant {
        uint32_t timeline;
        uint64_t replayed;
        uint64_t written;
        uint64_t whole; /* 0: not looked into yet */
};

/* A look at the commits of a primary: commits.c. */
struct commits {
        uint64_t boot;
        uint64_t ended;
        uint32_t timeline;
        uint64_t last_us; /* some were seen then */
        uint64_t committed;
};

/* Its slots, as of the last look at them. */
struct slots {
        uint64_t next_us;
        uint64_t most; /* that one may retain; 0: without limit */
        uint8_t count;
        struct world_postgres_slot items[WORLD_POSTGRES_SLOTS_MAX];
};

/* What is told when it begins and when it ends. */
enum trouble {
        TROUBLE_ROOM,
        TROUBLE_ARCHIVE_ROOM,
        TROUBLE_ARCHIVE,
        TROUBLE_BLIND,
        TROUBLE_LOGIN,
        TROUBLE_COUNT,
};

enum {
        CHILD_OUT_SIZE = 8192,
        CHILD_ERR_SIZE = 1024,
};

/* The ends of what a program wrote. */
struct child_text {
        char out[CHILD_OUT_SIZE];
        size_t out_len;
        char err[CHILD_ERR_SIZE];
        size_t err_len;
        int status; /* exit status; -1: it was ended */
};

struct warden {
        struct warden_config config;
        struct paths paths;
        uid_t uid; /* of the server */
        gid_t gid;
        char uid_text[16];
        char gid_text[16];
        char password[256];
        struct gate *gate;

        /* The loop's. */
        uv_async_t async;
        bool started;
        bool closing;
        bool joined;
        void (*closed)(void *user);
        void *closed_user;

        /* Shared; under `lock`. */
        pthread_t thread;
        pthread_mutex_t lock;
        pthread_cond_t wake;
        bool stop;
        bool command_waits;
        struct command command;
        uint64_t boot;       /* of the server that may be opened; 0: none */
        uint64_t gate_epoch; /* as the node told last */
        uint64_t gate_until_us;
        bool gate_limited;
        struct peers peers_told;
        uint64_t peers_version;
        struct out outs[OUTS_MAX];
        unsigned out_first;
        unsigned out_count;
        _Atomic bool cancel;             /* ends what is under way */
        _Atomic uint64_t watch_until_us; /* until then it looks more often */

        /* The thread's. */
        struct child_text text; /* of the program that an action runs */
        struct peers peers;
        uint64_t peers_taken;
        bool peers_changed;
        bool checkpoint_due;
        bool looking;
        PGconn *sql;         /* to the server as superuser */
        PGconn *replication; /* to a standby, for IDENTIFY_SYSTEM */
        uint64_t look_next_us;
        uint64_t slots_next_us;
        int64_t overrides_ns; /* of postgresql.auto.conf, as it was looked into last */
        ino_t overrides_inode;
        bool frozen; /* an action changes the data: looks repeat what was seen before, */
        bool fences; /* but for a fence: what was seen before it is not so any more */
        bool seen_any;
        struct world_postgres seen;
        struct stopped stopped;
        struct commits commits;
        struct slots slots;
        struct remnant remnant;
        bool log_noted;             /* that the end of the log cannot be told */
        bool follows;               /* the settings are those of the last follow */
        node_id upstream;           /* as the last action told; 0: none */
        uint32_t received_timeline; /* as its receiver told last, */
        int64_t received_start;     /* since that start of the server */
        uint64_t blind_since_us;    /* looks have failed since then; 0: they do not */
        struct fail blind;          /* why */
        bool troubles[TROUBLE_COUNT];
        uint64_t trouble_next_us;
        bool gap; /* what the standby needs next was removed */
        node_id gap_upstream;
        uint64_t gap_next_us;
        struct fail login; /* why the standby is not let in where it follows; "": it is */
};

/* ---- warden.c ---- */

void warden_out(struct warden *warden, const struct out *out);
void warden_note(struct warden *warden, const char *name, const char *format, ...)
        PRINTF_LIKE(3, 4);

/* Sleeps for `ms` while looking as often as is due. False: what is under way is to end. */
MUST_USE bool warden_pause(struct warden *warden, unsigned ms);

/* The server that runs now may be opened under the lease that the node tells of. */
void warden_gate_allow(struct warden *warden);

/* ---- files.c ---- */

/* The next line with its end, taken off `rest`, which is not empty. */
struct bytes line_take(struct bytes *rest);

/* readdir of a folder that nobody else reads: then it is safe in any thread. */
struct dirent *dir_next(DIR *dir);

/* Replaces a file durably; it belongs to the server's user, mode 0600. */
MUST_USE bool file_write(struct warden *warden, const char *path, struct bytes data,
                         struct fail *fail);

/* A whole file of at most `size` - 1 bytes, with a NUL. False: it is not there, or too long. */
MUST_USE bool file_read(const char *path, char *text, size_t size, size_t *ret_len);

bool file_there(const char *format, ...) PRINTF_LIKE(1, 2);
MUST_USE bool folder_make(struct warden *warden, const char *path, struct fail *fail);

/* Syncs the folder that holds `path`. */
void folder_sync(const char *path);
bool path_set(char path[static WARDEN_PATH_SIZE], const char *format, ...) PRINTF_LIKE(2, 3);

/* Makes home and what is in it; maps the gate. */
MUST_USE bool files_open(struct warden *warden, struct fail *fail);

/* The first part of it, which looks only: user, programs, paths. */
MUST_USE bool files_find(struct warden *warden, struct fail *fail);
void files_close(struct warden *warden);

/* ---- child.c ---- */

/* Runs `program` (of `bin`, or a whole path) as the server's user, in `home`, and waits for its
 * end; `arguments` are ended by NULL. False where it could not be run, ended otherwise than with
 * 0, or what is under way is to end: the sentence has the end of its stderr. */
MUST_USE bool child_run(struct warden *warden, const char *program, const char *const *arguments,
                        struct child_text *ret_text, struct fail *fail);

/* Signals every process that lives in a folder (a real path); returns how many there are. */
unsigned child_signal_in(const char *folder, int signal);

/* Ends what a daemon before this one left running. */
void child_orphans_end(struct warden *warden);

/* ---- sql.c ---- */

/* A connection that is made within `timeout_ms`; NULL: the sentence says why. */
MUST_USE PGconn *sql_connect(struct warden *warden, const char *conninfo, unsigned timeout_ms,
                             struct fail *fail);

/* The rows of a query; NULL: the sentence says why, and the connection is to be given up. */
MUST_USE PGresult *sql_ask(struct warden *warden, PGconn *connection, const char *text,
                           unsigned timeout_ms, struct fail *fail);

/* The connection to the own server, made where there is none. */
MUST_USE bool sql_own(struct warden *warden, struct fail *fail);

/* A query to the own server whose rows do not matter. */
MUST_USE bool sql_do(struct warden *warden, const char *text, unsigned timeout_ms,
                     struct fail *fail);
void sql_close(struct warden *warden);

/* How the own server, or the one that is followed, is reached by the replication role.
 * `more`: further parameters. */
bool sql_upstream(const struct warden *warden, node_id upstream, const char *more,
                  char text[static WARDEN_PATH_SIZE * 2]);

/* ---- conf.c ---- */

/* Writes meridian.conf for the cluster in `data` (a standby's where `upstream` is not 0), the files
 * of rights, and what makes PostgreSQL read them. */
MUST_USE bool conf_write(struct warden *warden, const char *data, node_id upstream,
                         struct fail *fail);

/* The text of meridian.conf. False: the upstream has no address. */
MUST_USE bool conf_text(const struct warden *warden, node_id upstream, struct buffer *text);

/* A setting of ours that somebody has set by ALTER SYSTEM since the last call: it counts until the
 * next conf_write or conf_reload. NULL: none. Costs a look at a file's times. */
const char *conf_overridden(struct warden *warden);

/* The same for the running server, and reads it again. */
MUST_USE bool conf_reload(struct warden *warden, node_id upstream, struct fail *fail);

/* ---- server.c ---- */

/* The postmaster of the cluster, or 0. */
pid_t server_pid(const struct warden *warden);

enum server_mode {
        SERVER_PRIMARY,
        SERVER_STANDBY, /* with standby.signal */
        SERVER_ALONE,   /* a primary without a gate that listens to nobody: for a new cluster */
};

/* Starts it (where it runs in the other mode, it is stopped first) and waits until it answers. */
MUST_USE bool server_start(struct warden *warden, enum server_mode mode, node_id upstream,
                           struct fail *fail);

/* Starts a standby anew that follows nobody, and no newer timeline than this one. */
MUST_USE bool server_stay(struct warden *warden, uint32_t timeline, struct fail *fail);

/* Ends it at once, or (fast) with a checkpoint; done where it does not run. */
MUST_USE bool server_stop(struct warden *warden, bool fast, struct fail *fail);

/* ---- look.c ---- */

/* Looks at the server; false: nothing is known now. */
MUST_USE bool look(struct warden *warden, struct world_postgres *ret);

/* Is there a whole cluster in the folder? */
bool look_data(const struct warden *warden);

/* The history of a timeline, from the cluster's files. */
MUST_USE bool look_history(struct warden *warden, uint32_t timeline, struct history *ret,
                           struct fail *fail);

/* System, timeline and place of a server that a replication connection leads to. */
MUST_USE bool look_identify(struct warden *warden, PGconn *connection, uint64_t *ret_system,
                            uint32_t *ret_timeline, uint64_t *ret_lsn, struct fail *fail);

/* Looks, and tells the node. */
void look_tell(struct warden *warden);

/* ---- commits.c ---- */

/* Before the primary is asked for its place in the log, */
void commits_before(struct warden *warden, struct commits *ret);

/* and after that: it is in `ret`. */
void commits_after(struct warden *warden, struct commits *now, struct world_postgres *ret);

/* What a primary's slots retain. */
void slots_look(struct warden *warden, struct world_postgres *ret);

/* ---- check.c ---- */

/* Is the data folder, where there is one, the server's user's own? */
MUST_USE bool check_owner(const struct warden *warden, struct fail *fail);

/* Would PostgreSQL start with it? */
MUST_USE bool check_folder(const struct warden *warden, struct fail *fail);

/* Is the server's address there, and free? */
MUST_USE bool check_address(const struct warden *warden, struct fail *fail);

/* Bytes that a folder's file system has left, and has in all. */
MUST_USE bool check_room(const char *path, uint64_t *ret_free, uint64_t *ret_size);

/* Adds what to do to a sentence of PostgreSQL's that is known. */
void check_advise(const struct warden *warden, struct fail *fail);

/* ---- gap.c, trouble.c ---- */

/* Finds out, now and then, whether the log is gone that a standby needs which does not stream. */
void gap_look(struct warden *warden);

/* Tells what is wrong, when it begins and when it ends. */
void trouble_look(struct warden *warden);

/* ---- adopt.c ---- */

/* Makes a cluster that somebody else made one of ours, before its first start. */
MUST_USE bool adopt(struct warden *warden, struct fail *fail);

/* ---- act.c, rejoin.c ---- */

/* Carries one command out. "" in `fail` where it is done. */
MUST_USE bool act(struct warden *warden, const struct command *command, struct fail *fail);

/* What is due while nothing is asked for. */
void act_idle(struct warden *warden);

MUST_USE bool rejoin_clone(struct warden *warden, node_id upstream, struct fail *fail);
MUST_USE bool rejoin_rewind(struct warden *warden, node_id upstream, struct fail *fail);
MUST_USE bool rejoin_rebuild(struct warden *warden, node_id upstream, struct fail *fail);

#endif
