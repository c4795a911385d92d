/* lock_options.c - the options of locks, a row each. */
#include "meridian/lock_options.h"

#include <stddef.h>
#include <stdlib.h>

enum option_kind {
        OPTION_TIME,
        OPTION_NUMBER,
        OPTION_TEXT,
        OPTION_FLAG,
};

static const struct option_row {
        const char *name;
        enum option_kind kind;
        size_t offset;
        uint64_t max;
} rows[] = {
        {"--lease", OPTION_TIME, offsetof(struct lock_options, lease_ms), 24ull * 3600 * 1000},
        {"--wait", OPTION_TIME, offsetof(struct lock_options, wait_ms), 3600ull * 1000},
        {"--delay", OPTION_TIME, offsetof(struct lock_options, delay_ms), 600ull * 1000},
        {"--slots", OPTION_NUMBER, offsetof(struct lock_options, slots), 1024},
        {"--session", OPTION_NUMBER, offsetof(struct lock_options, session), UINT64_MAX >> 1},
        {"--owner", OPTION_TEXT, offsetof(struct lock_options, owner), 0},
        {"--shared", OPTION_FLAG, offsetof(struct lock_options, shared), 0},
        {"--detect", OPTION_FLAG, offsetof(struct lock_options, detect), 0},
};

static bool number_read(const struct option_row *row, const char *text, uint64_t *ret)
{
        char *end = NULL;
        bool good = *text >= '0' && *text <= '9';
        if (good && row->kind == OPTION_TIME) {
                good = cli_duration(text, ret);
        } else if (good) {
                *ret = strtoull(text, &end, 10);
                good = *end == '\0';
        }
        if (!good)
                cli_error("\"%s\" is no value of %s: write %s", text, row->name,
                          row->kind == OPTION_TIME ? "30s, 500ms or 2m" : "a number in digits");
        else if (*ret > row->max)
                cli_error("%s is too large for %s", text, row->name);
        return good && *ret <= row->max;
}

static bool option_read(const struct option_row *row, struct lock_options *options,
                        const char *value)
{
        void *place = (char *)options + row->offset;
        uint64_t number = 0;
        if (row->kind == OPTION_FLAG) {
                memcpy(place, &(bool){true}, sizeof(bool));
                return true;
        }
        if (value == NULL) {
                cli_error("%s needs a value", row->name);
                return false;
        }
        if (row->kind == OPTION_TEXT) {
                memcpy(place, &value, sizeof value);
                return true;
        }
        if (!number_read(row, value, &number))
                return false;
        memcpy(place, &number, sizeof number);
        return true;
}

bool lock_options_read(struct lock_options *options, int argc, char **argv, int *at)
{
        while (*at < argc && strcmp(argv[*at], "--") != 0) {
                const struct option_row *row = NULL;
                for (size_t i = 0; i < COUNT_OF(rows); i++)
                        if (strcmp(rows[i].name, argv[*at]) == 0)
                                row = &rows[i];
                if (row == NULL) {
                        cli_error("there is no option %s of locks", argv[*at]);
                        return false;
                }
                bool flag = row->kind == OPTION_FLAG;
                if (!option_read(row, options, flag || *at + 1 >= argc ? NULL : argv[*at + 1]))
                        return false;
                *at += flag ? 1 : 2;
        }
        return true;
}
