/* gate.c - a primary takes writes only while the daemon's file says so (src/warden/gate.h).
 *
 * A transaction that has written asks before its commit begins, and again when the commit is
 * durable here and where it has to be, before its answer leaves: a machine that slept in between
 * would else tell of a commit that nobody else has. The first refusal is an error that ends the
 * transaction. At the second the commit stands, and only its client must not hear of it: the
 * session ends, as where a server dies at that moment, with the error 08007 that says so. While
 * writes are held (a switchover is under way) commits wait before they begin; so they do, for as
 * long as it takes and the gate stands open, while other regions are too far behind (rpo_hold).
 *
 * The file is mapped once, by the postmaster, at whose start a new number of it closes the gate
 * until the daemon opens it for that number. Where it cannot be mapped the server does not start.
 * Not asked: transactions without a number of their own (reads), and those of autovacuum. */
#include "postgres.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "access/xact.h"

/* the server's own header wants Kerberos's where that is compiled in; nothing of it is used here */
#undef ENABLE_GSS
#include "libpq/libpq.h"

#include "libpq/pqformat.h"
#include "miscadmin.h"
#include "postmaster/autovacuum.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/wait_event.h"

#include "forward.h"
#include "warden/gate.h"

#define HELD_MS_MAX     30000
#define LIMITED_TELL_MS 1000

static char *gate_path;
static struct gate *gate;
static uint64 gate_boot;
static bool commit_counted;
static shmem_startup_hook_type next_shmem_startup;

static bool asks(void)
{
        return gate != NULL && !IsAutoVacuumWorkerProcess() &&
               TransactionIdIsValid(GetTopTransactionIdIfAny());
}

static void count_begin(void)
{
        atomic_fetch_add(&gate->begun, 1);
        commit_counted = true;
}

static void count_end(void)
{
        if (!commit_counted)
                return;
        commit_counted = false;
        atomic_fetch_add(&gate->ended, 1);
}

static void refuse(void)
{
        ereport(ERROR, (errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
                        errmsg("this server may not take writes now: it does not hold the lease"),
                        errdetail("Nothing of this transaction was kept."),
                        errhint("Connect again through Meridian's endpoint, which leads to the "
                                "server that takes writes.")));
}

/* Commits wait for other regions. A closed gate lets nobody wait: it refuses. */
static bool limited(void)
{
        return atomic_load(&gate->limited) != 0 && gate_open(gate, gate_boot);
}

static void wait_while_limited(void)
{
        uint64 told_us = gate_now_us() + 1000 * (uint64)LIMITED_TELL_MS;
        while (limited()) {
                (void)WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 5,
                                PG_WAIT_EXTENSION);
                ResetLatch(MyLatch);
                CHECK_FOR_INTERRUPTS();
                if (gate_now_us() < told_us)
                        continue;
                told_us = UINT64_MAX;
                ereport(NOTICE, (errmsg("the commit waits: no other region has what this server "
                                        "has committed, for longer than the limit"),
                                 errhint("\"meridian status\" tells how far they are behind; the "
                                         "limit is rpo in the topology's section postgres.")));
        }
}

/* Until the writes go on, or will not. */
static void wait_while_held(void)
{
        uint64 until_us = gate_now_us() + 1000 * (uint64)HELD_MS_MAX;
        while (atomic_load(&gate->held) != 0 && atomic_load(&gate->opened) == gate_boot &&
               gate_now_us() < until_us) {
                (void)WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 2,
                                PG_WAIT_EXTENSION);
                ResetLatch(MyLatch);
                CHECK_FOR_INTERRUPTS();
        }
}

static void before_commit(void)
{
        for (;;) {
                count_begin();
                if (atomic_load(&gate->held) == 0 && !limited())
                        break;
                count_end();
                wait_while_limited();
                wait_while_held();
                if (atomic_load(&gate->held) != 0)
                        refuse();
        }
        if (!gate_open(gate, gate_boot)) {
                count_end();
                refuse();
        }
}

static void field_add(StringInfo message, char kind, const char *text)
{
        pq_sendbyte(message, (uint8)kind);
        pq_sendstring(message, text);
}

/* To PostgreSQL it must be no error, as the transaction is committed; to the client it is one. */
static void tell_unknown(const char *why, const char *detail)
{
        StringInfoData message;
        if (whereToSendOutput != DestRemote)
                return;
        pq_beginmessage(&message, 'E');
        field_add(&message, PG_DIAG_SEVERITY, "FATAL");
        field_add(&message, PG_DIAG_SEVERITY_NONLOCALIZED, "FATAL");
        field_add(&message, PG_DIAG_SQLSTATE, "08007");
        field_add(&message, PG_DIAG_MESSAGE_PRIMARY, why);
        field_add(&message, PG_DIAG_MESSAGE_DETAIL, detail);
        pq_sendbyte(&message, 0);
        pq_endmessage(&message);
        pq_flush();
}

/* It is too late to refuse: the transaction is committed. As where a wait for a standby is canceled
 * by the end of the session, the client gets no answer, but is told that nobody knows. */
static void after_commit(void)
{
        static const char why[] =
                "this server stopped taking writes while the transaction committed";
        static const char detail[] = "The transaction is committed here; whether the next primary "
                                     "has it is not known.";
        count_end();
        if (gate_open(gate, gate_boot))
                return;
        /* Some drivers show the last error only, which is that the connection is gone. */
        ereport(WARNING, (errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
                          errmsg_internal("%s", why), errdetail_internal("%s", detail)));
        tell_unknown(why, detail);
        whereToSendOutput = DestNone;
        ProcDiePending = true;
        InterruptPending = true;
}

static void on_transaction(XactEvent event, void *argument)
{
        (void)argument;
        switch (event) {
        case XACT_EVENT_PRE_COMMIT:
        case XACT_EVENT_PRE_PREPARE:
                if (asks())
                        before_commit();
                break;
        case XACT_EVENT_COMMIT:
        case XACT_EVENT_PREPARE:
                if (commit_counted)
                        after_commit();
                break;
        case XACT_EVENT_ABORT:
                if (commit_counted)
                        count_end();
                break;
        case XACT_EVENT_PARALLEL_COMMIT:
        case XACT_EVENT_PARALLEL_ABORT:
        case XACT_EVENT_PARALLEL_PRE_COMMIT:
                break;
        }
}

/* The statement has a transaction of its own, without a number, that ends when the prepared one has
 * ended, and it waited for standbys: the end of that one is the end of the commit. */
void gate_commit_prepared(void)
{
        if (gate != NULL && !commit_counted)
                before_commit();
}

/* All processes are new: none is inside of a commit. */
static void shmem_startup(void)
{
        if (next_shmem_startup != NULL)
                next_shmem_startup();
        atomic_store(&gate->ended, 0);
        atomic_store(&gate->begun, 0);
}

static void gate_map(void)
{
        int fd = open(gate_path, O_RDWR | O_CLOEXEC);
        void *memory = MAP_FAILED;
        if (fd >= 0) {
                if (lseek(fd, 0, SEEK_END) >= GATE_SIZE)
                        memory = mmap(NULL, GATE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
                close(fd);
        }
        if (memory == MAP_FAILED || atomic_load(&((struct gate *)memory)->magic) != GATE_MAGIC)
                ereport(FATAL,
                        (errcode(ERRCODE_CONFIG_FILE_ERROR),
                         errmsg("the gate \"%s\" cannot be used, so nobody knows whether this "
                                "server may take writes",
                                gate_path),
                         errhint("meridiand makes it when it starts. To run the server without "
                                 "Meridian, take meridian.conf out of postgresql.conf.")));
        gate = memory;
}

void gate_init(void)
{
        DefineCustomStringVariable("meridian.gate",
                                   "The file that says until when this server may take writes.",
                                   "Empty: it may at any time.", &gate_path, "", PGC_POSTMASTER,
                                   GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
        if (!process_shared_preload_libraries_in_progress || gate_path[0] == '\0')
                return;
        gate_map();
        while (gate_boot == 0)
                if (!pg_strong_random(&gate_boot, sizeof gate_boot))
                        ereport(FATAL, (errmsg("no random number can be had")));
        atomic_store(&gate->boot, gate_boot);
        next_shmem_startup = shmem_startup_hook;
        shmem_startup_hook = shmem_startup;
        RegisterXactCallback(on_transaction, NULL);
}
