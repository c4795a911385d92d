/* Files of a node: locked, written aside and renamed, never half there. Every failure names the
 * path and what to do. */
#include "base/check.h"
#include "base/digits.h"
#include "io/io_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum err io_fail(struct io_error *error, enum err err, const char *format, ...)
{
        va_list args;
        va_start(args, format);
        if (error != NULL)
                vsnprintf(error->text, sizeof error->text, format, args);
        va_end(args);
        return err;
}

struct errno_row {
        int number;
        enum err err;
};

static const struct errno_row errno_rows[] = {
        {ENOSPC, ERR_NOSPACE},   {EDQUOT, ERR_NOSPACE}, {ENOENT, ERR_NOT_FOUND},
        {ENOMEM, ERR_NOMEM},     {EEXIST, ERR_EXISTS},  {EACCES, ERR_REFUSED},
        {EPERM, ERR_REFUSED},    {EMFILE, ERR_LIMIT},   {ENFILE, ERR_LIMIT},
        {EWOULDBLOCK, ERR_BUSY}, {EFBIG, ERR_LIMIT},
};

enum err io_err_of_errno(int number)
{
        for (size_t i = 0; i < COUNT_OF(errno_rows); i++) {
                if (errno_rows[i].number == number)
                        return errno_rows[i].err;
        }
        return ERR_IO;
}

static enum err fail_errno(struct io_error *error, const char *doing, const char *path)
{
        int number = errno;
        const char *hint = number == ENOSPC || number == EDQUOT ? "; free some space"
                           : number == EACCES || number == EPERM || number == EROFS
                                   ? "; check who owns it"
                                   : "";
        return io_fail(error, io_err_of_errno(number), "cannot %s %s: %s%s", doing, path,
                       uv_strerror(-number), hint);
}

bool io_write_all(int fd, struct bytes data, uint64_t offset)
{
        while (data.len > 0) {
                ssize_t len = pwrite(fd, data.ptr, data.len, (off_t)offset);
                if (len < 0 && errno == EINTR)
                        continue;
                if (len <= 0) {
                        errno = len == 0 ? EIO : errno;
                        return false;
                }
                data = bytes_of(data.ptr + len, data.len - (size_t)len);
                offset += (uint64_t)len;
        }
        return true;
}

bool io_dir_sync(const char *dir)
{
        int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return false;
        bool synced = fsync(fd) == 0;
        int number = errno;
        close(fd);
        errno = number;
        return synced;
}

enum err io_dir_make(const char *dir, struct io_error *error)
{
        char part[IO_PATH_MAX];
        struct stat info;
        size_t len = strlen(dir);
        if (len == 0 || len >= sizeof part)
                return io_fail(error, ERR_INVALID, "'%s' is not a usable folder name", dir);
        for (size_t i = 1; i <= len; i++) {
                if (dir[i] != '/' && dir[i] != '\0')
                        continue;
                memcpy(part, dir, i);
                part[i] = '\0';
                if (mkdir(part, 0700) != 0 && errno != EEXIST)
                        return fail_errno(error, "create the folder", part);
        }
        if (stat(dir, &info) != 0 || !S_ISDIR(info.st_mode))
                return io_fail(error, ERR_IO, "%s is not a folder: move it away", dir);
        return ERR_NONE;
}

/* dir/name; CHECKs nothing about outside input: a path that is too long is refused. */
static enum err path_join(char path[IO_PATH_MAX], const char *dir, const char *name,
                          struct io_error *error)
{
        int len = snprintf(path, IO_PATH_MAX, "%s/%s", dir, name);
        if (len < 1 || len >= IO_PATH_MAX)
                return io_fail(error, ERR_INVALID, "the name of the folder %s is too long", dir);
        return ERR_NONE;
}

/* The pid that the holder wrote, for the message only. */
static long holder_read(int fd)
{
        char text[32];
        ssize_t len = pread(fd, text, sizeof text - 1, 0);
        text[len > 0 ? len : 0] = '\0';
        return strtol(text, NULL, 10);
}

enum err io_dir_lock(const char *dir, int *ret_fd, struct io_error *error)
{
        char path[IO_PATH_MAX], text[32];
        enum err err = path_join(path, dir, "lock", error);
        if (err != ERR_NONE)
                return err;
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0)
                return fail_errno(error, "open", path);
        if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
                bool held = errno == EWOULDBLOCK;
                err = held ? io_fail(error, ERR_BUSY,
                                     "the data folder %s is in use by process %ld: stop that one "
                                     "first",
                                     dir, holder_read(fd))
                           : fail_errno(error, "lock", path);
                close(fd);
                return err;
        }
        int len = snprintf(text, sizeof text, "%ld\n", (long)getpid());
        if (ftruncate(fd, 0) != 0 || !io_write_all(fd, bytes_of(text, (size_t)len), 0)) {
                err = fail_errno(error, "write", path);
                close(fd);
                return err;
        }
        *ret_fd = fd;
        return ERR_NONE;
}

void io_dir_unlock(int fd)
{
        close(fd);
}

static enum err fd_read(struct heap *heap, int fd, const char *path, size_t size_max,
                        uint8_t **ret_ptr, size_t *ret_len, struct io_error *error)
{
        struct stat info;
        if (fstat(fd, &info) != 0)
                return fail_errno(error, "read", path);
        if (!S_ISREG(info.st_mode))
                return io_fail(error, ERR_IO, "%s is not a file", path);
        if ((uint64_t)info.st_size > size_max)
                return io_fail(error, ERR_LIMIT, "%s is larger than the %zu bytes allowed", path,
                               size_max);
        size_t size = (size_t)info.st_size, len = 0;
        uint8_t *data = heap_alloc(heap, size + 1);
        if (data == NULL)
                return io_fail(error, ERR_NOMEM, "no memory to read %s (%zu bytes)", path, size);
        while (len < size) {
                ssize_t more = pread(fd, data + len, size - len, (off_t)len);
                if (more < 0 && errno == EINTR)
                        continue;
                if (more < 0) {
                        enum err err = fail_errno(error, "read", path);
                        heap_free(heap, data);
                        return err;
                }
                if (more == 0)
                        break;
                len += (size_t)more;
        }
        *ret_ptr = data;
        *ret_len = len;
        return ERR_NONE;
}

enum err io_file_read(struct heap *heap, const char *path, size_t size_max, uint8_t **ret_ptr,
                      size_t *ret_len, struct io_error *error)
{
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return fail_errno(error, "read", path);
        enum err err = fd_read(heap, fd, path, size_max, ret_ptr, ret_len, error);
        close(fd);
        return err;
}

/* The folder that holds `path`. */
static void parent_of(const char *path, char dir[IO_PATH_MAX])
{
        const char *slash = strrchr(path, '/');
        size_t len = slash == NULL ? 0 : (size_t)(slash - path);
        CHECK(len < IO_PATH_MAX);
        memcpy(dir, path, len);
        dir[len] = '\0';
        if (len == 0)
                memcpy(dir, slash == NULL ? "." : "/", 2);
}

enum err io_file_write(const char *path, struct bytes data, unsigned mode, struct io_error *error)
{
        char aside[IO_PATH_MAX], dir[IO_PATH_MAX];
        int len = snprintf(aside, sizeof aside, "%s.new", path);
        if (len < 1 || len >= (int)sizeof aside)
                return io_fail(error, ERR_INVALID, "the path %s is too long", path);
        parent_of(path, dir);
        int fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, (mode_t)mode);
        if (fd < 0)
                return fail_errno(error, "create", aside);
        bool written = io_write_all(fd, data, 0) && fsync(fd) == 0;
        int number = errno;
        close(fd);
        errno = number;
        if (!written || rename(aside, path) != 0 || !io_dir_sync(dir)) {
                enum err err = fail_errno(error, "write", path);
                unlink(aside);
                return err;
        }
        return ERR_NONE;
}

/* The number of the last start; 0 before the first. */
static enum err incarnation_read(const char *path, uint64_t *ret_value, struct io_error *error)
{
        char text[32];
        *ret_value = 0;
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return errno == ENOENT ? ERR_NONE : fail_errno(error, "read", path);
        ssize_t len = read(fd, text, sizeof text);
        close(fd);
        if (len < 1 || text[len - 1] != '\n' ||
            !digits_parse(bytes_of(text, (size_t)len - 1), UINT64_MAX, ret_value))
                return io_fail(error, ERR_CORRUPT,
                               "%s holds no number of starts; write one into it that is larger "
                               "than any before (the seconds since 1970 will do)",
                               path);
        return ERR_NONE;
}

enum err io_incarnation_next(const char *dir, uint64_t *ret_incarnation, struct io_error *error)
{
        char path[IO_PATH_MAX], text[32];
        uint64_t last = 0;
        enum err err = path_join(path, dir, "incarnation", error);
        if (err == ERR_NONE)
                err = incarnation_read(path, &last, error);
        if (err != ERR_NONE)
                return err;
        int len = snprintf(text, sizeof text, "%llu\n", (unsigned long long)(last + 1));
        err = io_file_write(path, bytes_of(text, (size_t)len), 0600, error);
        if (err == ERR_NONE)
                *ret_incarnation = last + 1;
        return err;
}
