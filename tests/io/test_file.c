/* Files: the lock of a folder, the count of starts, whole files. */
#include "io/io_priv.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
/* cmocka needs some of the above. */
#include <cmocka.h>

static char root[64];
static struct heap heap;

static const char *in_root(const char *name)
{
        static char paths[4][256];
        static unsigned next;
        char *path = paths[next++ % COUNT_OF(paths)];
        snprintf(path, sizeof paths[0], "%s/%s", root, name);
        return path;
}

static void put(const char *name, const char *text, size_t len)
{
        FILE *file = fopen(in_root(name), "we");
        assert_non_null(file);
        assert_int_equal(fwrite(text, 1, len, file), len);
        fclose(file);
}

static void test_folders(void **state)
{
        (void)state;
        struct io_error error;
        struct stat info;
        assert_int_equal(io_dir_make(in_root("a/b/c"), &error), ERR_NONE);
        assert_int_equal(io_dir_make(in_root("a/b/c"), &error), ERR_NONE);
        assert_int_equal(stat(in_root("a/b"), &info), 0);
        assert_int_equal(info.st_mode & 0777, 0700);
        put("file", "x", 1);
        assert_int_equal(io_dir_make(in_root("file"), &error), ERR_IO);
        assert_non_null(strstr(error.text, "is not a folder"));
        assert_int_not_equal(io_dir_make(in_root("file/below"), &error), ERR_NONE);
        assert_int_equal(io_dir_make("", &error), ERR_INVALID);
}

static void test_lock(void **state)
{
        (void)state;
        struct io_error error;
        char pid[32];
        int first, second;
        assert_int_equal(io_dir_lock(root, &first, &error), ERR_NONE);
        assert_int_equal(io_dir_lock(root, &second, &error), ERR_BUSY);
        snprintf(pid, sizeof pid, "process %ld", (long)getpid());
        assert_non_null(strstr(error.text, pid));
        assert_non_null(strstr(error.text, root));
        io_dir_unlock(first);
        assert_int_equal(io_dir_lock(root, &second, &error), ERR_NONE);
        io_dir_unlock(second);
        assert_int_equal(io_dir_lock(in_root("nowhere"), &first, &error), ERR_NOT_FOUND);
}

static void test_incarnation(void **state)
{
        (void)state;
        struct io_error error;
        uint64_t value = 0;
        for (uint64_t i = 1; i <= 12; i++) {
                assert_int_equal(io_incarnation_next(root, &value, &error), ERR_NONE);
                assert_int_equal(value, i);
        }
        static const struct {
                const char *text;
                size_t len;
                enum err err;
                const char *why;
        } rows[] = {
                {"", 0, ERR_CORRUPT, "empty"},
                {"7", 1, ERR_CORRUPT, "cut before its end"},
                {"\n", 1, ERR_CORRUPT, "no digit"},
                {"-7\n", 3, ERR_CORRUPT, "a sign"},
                {"7x\n", 3, ERR_CORRUPT, "a letter"},
                {"99999999999999999999\n", 21, ERR_CORRUPT, "too large"},
                {"999999999999999999\n", 19, ERR_NONE, "the largest"},
                {"41\n", 3, ERR_NONE, "good"},
        };
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
                put("incarnation", rows[i].text, rows[i].len);
                enum err err = io_incarnation_next(root, &value, &error);
                if (err != rows[i].err)
                        fail_msg("%s: %s", rows[i].why, error.text);
        }
        assert_int_equal(value, 42);
}

static void test_whole_files(void **state)
{
        (void)state;
        struct io_error error;
        struct stat info;
        uint8_t *data;
        size_t len;
        assert_int_equal(io_file_write(in_root("whole"), BYTES("first"), 0600, &error), ERR_NONE);
        assert_int_equal(io_file_write(in_root("whole"), BYTES("second!"), 0600, &error), ERR_NONE);
        assert_int_equal(stat(in_root("whole"), &info), 0);
        assert_int_equal(info.st_mode & 0777, 0600);
        assert_int_equal(access(in_root("whole.new"), F_OK), -1);
        assert_int_equal(io_file_read(&heap, in_root("whole"), 7, &data, &len, &error), ERR_NONE);
        assert_int_equal(len, 7);
        assert_memory_equal(data, "second!", 7);
        heap_free(&heap, data);
        assert_int_equal(io_file_read(&heap, in_root("whole"), 6, &data, &len, &error), ERR_LIMIT);
        assert_int_equal(io_file_read(&heap, in_root("none"), 6, &data, &len, &error),
                         ERR_NOT_FOUND);
        assert_int_equal(io_file_read(&heap, root, 6, &data, &len, &error), ERR_IO);
        assert_int_equal(io_file_write(in_root("none/x"), BYTES("x"), 0600, &error), ERR_NOT_FOUND);
        assert_int_equal(heap.used_bytes, 0);
}

static void test_errno(void **state)
{
        (void)state;
        assert_int_equal(io_err_of_errno(ENOSPC), ERR_NOSPACE);
        assert_int_equal(io_err_of_errno(EDQUOT), ERR_NOSPACE);
        assert_int_equal(io_err_of_errno(EIO), ERR_IO);
        assert_int_equal(io_err_of_errno(12345), ERR_IO);
}

static int setup(void **state)
{
        (void)state;
        heap_init(&heap, 0);
        snprintf(root, sizeof root, "/tmp/meridian-io-XXXXXX");
        return mkdtemp(root) == NULL ? -1 : 0;
}

static int teardown(void **state)
{
        (void)state;
        char command[128];
        snprintf(command, sizeof command, "rm -rf '%s'", root);
        return system(command); /* NOLINT(cert-env33-c): our own folder */
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_folders),     cmocka_unit_test(test_lock),
                cmocka_unit_test(test_incarnation), cmocka_unit_test(test_whole_files),
                cmocka_unit_test(test_errno),
        };
        return cmocka_run_group_tests_name("io/file", tests, setup, teardown);
}
