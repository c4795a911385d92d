/* err.c - names and texts of the errors, from the list in err.h. */
#include "base/err.h"

#include "base/bytes.h"

static const struct {
        const char *name;
        const char *text;
        bool may_retry;
} rows[] = {{"ERR_NONE", "ok", false},
#define ERR_ROW(name, text, retry) {#name, text, retry},
            ERR_LIST(ERR_ROW)
#undef ERR_ROW
};

_Static_assert(COUNT_OF(rows) == ERR_COUNT, "one row an error");

static bool err_known(enum err err)
{
        return (unsigned)err < ERR_COUNT;
}

const char *err_text(enum err err)
{
        return err_known(err) ? rows[err].text : "unknown error";
}

const char *err_name(enum err err)
{
        return err_known(err) ? rows[err].name : "ERR_UNKNOWN";
}

bool err_may_retry(enum err err)
{
        return err_known(err) && rows[err].may_retry;
}
