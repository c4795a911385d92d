/* A sync that failed, and a start while the machine goes on: the kernel reads from its memory what
 * the disk has not. Writes and syncs of this program go by a model of that: a write makes bytes
 * dirty, a sync brings what is dirty to the disk, or, where it fails, forgets that it was. */
#include "io/io_priv.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
/* cmocka needs some of the above. */
#include <cmocka.h>

enum {
        DISK_SIZE = 4096, /* of a journal what is beyond is zeros here */
};

static struct {
        bool fails; /* each sync of the journal */
        uint8_t disk[DISK_SIZE];
        bool dirty[DISK_SIZE];
        uint8_t memory[DISK_SIZE];
        size_t written; /* bytes that are no zeros made ready */
} kernel;

static char root[64];
static struct heap heap;
static uv_loop_t loop;
static struct journal journal;
static unsigned syncs;
static unsigned failures;
static uint8_t *held;
static size_t held_len;

static bool is_journal(int fd)
{
        char link[64], path[256];
        (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t len = readlink(link, path, sizeof path - 1);
        path[len > 0 ? len : 0] = '\0';
        return strstr(path, "/journal-global") != NULL && strstr(path, ".begun") == NULL;
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t at)
{
        const uint8_t *bytes = data;
        for (size_t i = 0; is_journal(fd) && i < len && (size_t)at + i < DISK_SIZE; i++) {
                kernel.memory[(size_t)at + i] = bytes[i];
                kernel.dirty[(size_t)at + i] = true;
                kernel.written += bytes[i] != 0;
        }
        return syscall(SYS_pwrite64, fd, data, len, at);
}

static int sync_by(int fd)
{
        if (!is_journal(fd))
                return 0;
        for (size_t i = 0; i < DISK_SIZE; i++) {
                if (kernel.dirty[i] && !kernel.fails)
                        kernel.disk[i] = kernel.memory[i];
                kernel.dirty[i] = false;
        }
        errno = EIO;
        return kernel.fails ? -1 : 0;
}

int fsync(int fd)
{
        return sync_by(fd);
}

int fdatasync(int fd)
{
        return sync_by(fd);
}

static void on_synced(void *user, struct journal *which, uint64_t generation, uint64_t offset)
{
        (void)user;
        (void)which;
        (void)generation;
        (void)offset;
        syncs++;
}

static void on_failed(void *user, struct journal *which, enum err err)
{
        (void)user;
        (void)which;
        (void)err;
        failures++;
}

static enum err start(journal_known *known)
{
        struct io_error error;
        enum err err = journal_open(&journal, &loop, &heap, root, WORLD_GROUP_GLOBAL, known, &held,
                                    &held_len, &error);
        journal.synced = on_synced;
        journal.fail = on_failed;
        return err;
}

static void end(void)
{
        while (journal_busy(&journal))
                (void)uv_run(&loop, UV_RUN_ONCE);
        journal_close(&journal);
        heap_free(&heap, held);
        held = NULL;
}

static void append(uint64_t at, const char *text)
{
        journal_append(&journal, at, bytes_of_str(text));
        journal_write(&journal);
        while (journal_busy(&journal))
                (void)uv_run(&loop, UV_RUN_ONCE);
}

static bool disk_has(const char *text)
{
        return memcmp(kernel.disk, text, strlen(text) + 1) == 0;
}

/* "sure" is on the disk, and " lost" in the kernel's memory alone. */
static int setup(void **state)
{
        (void)state;
        memset(&kernel, 0, sizeof kernel);
        syncs = failures = 0;
        (void)snprintf(root, sizeof root, "/tmp/meridian-renew-XXXXXX");
        assert_non_null(mkdtemp(root));
        heap_init(&heap, 0);
        assert_int_equal(uv_loop_init(&loop), 0);
        assert_int_equal(start(NULL), ERR_NONE);
        append(0, "sure");
        kernel.fails = true;
        append(4, " lost");
        assert_int_equal(syncs, 1);
        assert_int_equal(failures, 1);
        end();
        kernel.fails = false;
        assert_true(disk_has("sure"));
        kernel.written = 0;
        return 0;
}

static int teardown(void **state)
{
        char command[128];
        (void)state;
        assert_int_equal(uv_loop_close(&loop), 0);
        assert_int_equal(heap.used_bytes, 0);
        (void)snprintf(command, sizeof command, "rm -r %s", root);
        return system(command);
}

static void test_all_of_it(void **state)
{
        (void)state;
        assert_int_equal(start(NULL), ERR_NONE);
        assert_true(held_len > 9 && memcmp(held, "sure lost", 10) == 0);
        assert_true(disk_has("sure lost"));
        assert_int_equal(kernel.written, 9);
        append(9, ", found");
        end();
        assert_true(disk_has("sure lost, found"));
}

/* Where that sync fails, nothing begins; and the next start does not believe it either. */
static void test_again(void **state)
{
        (void)state;
        kernel.fails = true;
        assert_int_equal(start(NULL), ERR_IO);
        end();
        assert_true(disk_has("sure"));
        kernel.fails = false;
        assert_int_equal(start(NULL), ERR_NONE);
        end();
        assert_true(disk_has("sure lost"));
}

static uint64_t four(struct bytes data)
{
        assert_true(data.len > 9);
        return 4;
}

static uint64_t too_many(struct bytes data)
{
        return data.len + 1000;
}

static void test_what_is_not_known(void **state)
{
        (void)state;
        assert_int_equal(start(four), ERR_NONE);
        end();
        assert_true(disk_has("sure lost"));
        assert_int_equal(kernel.written, 5);
        assert_int_equal(start(too_many), ERR_NONE);
        end();
        assert_int_equal(kernel.written, 5);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_all_of_it, setup, teardown),
                cmocka_unit_test_setup_teardown(test_again, setup, teardown),
                cmocka_unit_test_setup_teardown(test_what_is_not_known, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
