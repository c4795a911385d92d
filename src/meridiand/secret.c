/* A password that stands in a file of its own, on one line. What is wrong with it is said in one
 * line of the log, with what to do. */
#include "base/log.h"
#include "meridiand/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* The file's text and mode; negative where it cannot be read. */
static ssize_t text_read(const char *path, char *text, size_t size, mode_t *ret_mode)
{
        struct stat info;
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return -1;
        ssize_t len = fstat(fd, &info) == 0 ? read(fd, text, size) : -1;
        int number = errno;
        close(fd);
        errno = number;
        if (len >= 0)
                *ret_mode = info.st_mode;
        return len;
}

bool secret_read(const char *path, char *ret, size_t size)
{
        mode_t mode = 0;
        ssize_t len = text_read(path, ret, size, &mode);
        if (len < 0) {
                LOG_ERROR("password", "%s cannot be read: %s; write the password there", path,
                          strerrordesc_np(errno));
                return false;
        }
        if ((mode & (S_IRWXG | S_IRWXO)) != 0) {
                LOG_ERROR("password", "%s can be read or written by others: chmod 600 it", path);
                return false;
        }
        size_t end = 0;
        while (end < (size_t)len && ret[end] != '\n' && ret[end] != '\r')
                end++;
        if (end == 0 || end == size || memchr(ret, '\0', end) != NULL) {
                LOG_ERROR("password", "%s: the first line has to be the password, 1 to %zu bytes",
                          path, size - 1);
                return false;
        }
        ret[end] = '\0';
        return true;
}
