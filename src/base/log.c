/* log.c - a line is made whole in memory and written by one call, so lines of two threads do not
 * mix. One that is too long is cut; one that cannot be written is lost without a word. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static const char *log_program = "meridian";
static enum log_level log_level_least = LOG_LEVEL_INFO;

static const char *const level_names[] = {"error", "warn", "info", "debug"};

void log_start(const char *program, enum log_level level)
{
        log_program = program;
        log_level_least = level;
}

void log_write(enum log_level level, const char *event, const char *format, ...)
{
        if (level > log_level_least)
                return;
        char line[2048];
        struct timespec now;
        struct tm utc;
        clock_gettime(CLOCK_REALTIME, &now);
        gmtime_r(&now.tv_sec, &utc);
        size_t len = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &utc);
        len += (size_t)snprintf(line + len, sizeof line - len,
                                ".%03ldZ %s %s[%d] %s: ", now.tv_nsec / 1000000, level_names[level],
                                log_program, (int)getpid(), event);
        va_list args;
        va_start(args, format);
        int more = vsnprintf(line + len, sizeof line - len - 1, format, args);
        va_end(args);
        if (more > 0)
                len += (size_t)more < sizeof line - len - 1 ? (size_t)more : sizeof line - len - 2;
        line[len++] = '\n';
        ssize_t written = write(STDERR_FILENO, line, len);
        (void)written; /* nowhere is left to complain to */
}
