/* settings.c - the session there has the settings of the session here.
 *
 * Sent are: a few that decide how text is read and written, whatever their source (the two servers'
 * files may differ), and all that this session or its client has set, the role and the
 * application's own included. What role and database set is set there by the login. Only what
 * differs from what was sent before travels, in the same round trip as the statement. A setting
 * that was sent inside a transaction that failed has an unknown value there, and is sent again. */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"
#include "utils/memutils.h"

#include "forward.h"

struct setting {
        char *name;
        char *value; /* what was sent last; NULL: the default of the server there */
        bool wanted;
        bool tentative; /* sent in a transaction whose end is not told yet */
        bool unsure;    /* sent in one that failed */
};

static struct {
        struct setting *all;
        int count;
        int room;
} known;

static const char *const always[] = {
        "bytea_output",  "client_min_messages", "DateStyle",   "default_text_search_config",
        "IntervalStyle", "extra_float_digits",  "search_path", "TimeZone",
        "xmlbinary",     "xmloption",
};

/* Of this server or of this side of the session, or carried by BEGIN. */
static const char *const never[] = {
        "client_encoding",
        "default_transaction_read_only",
        "idle_in_transaction_session_timeout",
        "idle_session_timeout",
        "is_superuser",
        "role",
        "seed",
        "session_authorization",
        "transaction_deferrable",
        "transaction_isolation",
        "transaction_read_only",
};

static bool listed(const char *name, const char *const *list, size_t count)
{
        for (size_t i = 0; i < count; i++)
                if (pg_strcasecmp(name, list[i]) == 0)
                        return true;
        return false;
}

static bool to_send(const struct config_generic *setting)
{
        bool set_here = setting->source == PGC_S_CLIENT || setting->source >= PGC_S_INTERACTIVE;
        if (setting->context != PGC_USERSET && setting->context != PGC_SUSET)
                return false;
        if (strncmp(setting->name, "meridian.", 9) == 0 ||
            listed(setting->name, never, lengthof(never)))
                return false;
        return set_here || listed(setting->name, always, lengthof(always));
}

static struct setting *find(const char *name)
{
        for (int i = 0; i < known.count; i++)
                if (strcmp(known.all[i].name, name) == 0)
                        return &known.all[i];
        if (known.count == known.room) {
                int room = known.room == 0 ? 32 : known.room * 2;
                Size bytes = sizeof *known.all * (Size)room;
                known.all = known.all == NULL ? MemoryContextAlloc(TopMemoryContext, bytes)
                                              : repalloc(known.all, bytes);
                known.room = room;
        }
        struct setting *added = &known.all[known.count++];
        *added = (struct setting){.name = MemoryContextStrdup(TopMemoryContext, name)};
        return added;
}

static void remember(struct setting *setting, const char *value)
{
        if (setting->value != NULL)
                pfree(setting->value);
        setting->value = value == NULL ? NULL : MemoryContextStrdup(TopMemoryContext, value);
        setting->tentative = true;
        setting->unsure = false;
}

struct change {
        StringInfoData text;
        struct remote_params params;
        int room;
};

static void change_add(struct change *change, const char *name, const char *value)
{
        struct remote_params *params = &change->params;
        if (params->count + 2 > change->room) {
                change->room += 16;
                Size bytes = sizeof *params->values * (Size)change->room;
                params->values =
                        params->values == NULL ? palloc(bytes) : repalloc(params->values, bytes);
        }
        appendStringInfo(&change->text, "%s pg_catalog.set_config($%d, $%d, false)",
                         params->count == 0 ? "SELECT" : ",", params->count + 1, params->count + 2);
        params->values[params->count++] = pstrdup(name);
        params->values[params->count++] = pstrdup(value);
}

static void change_setting(struct change *change, const char *name, const char *value)
{
        struct setting *setting = find(name);
        setting->wanted = true;
        if (setting->value != NULL && !setting->unsure && strcmp(setting->value, value) == 0)
                return;
        change_add(change, name, value);
        remember(setting, value);
}

static char *quoted(const char *name)
{
        StringInfoData text;
        initStringInfo(&text);
        for (const char *dot; (dot = strchr(name, '.')) != NULL; name = dot + 1)
                appendStringInfo(&text, "%s.",
                                 quote_identifier(pnstrdup(name, (Size)(dot - name))));
        appendStringInfoString(&text, quote_identifier(name));
        return text.data;
}

/* RESET for what was sent once and is no longer set here. */
static bool reset_others(void)
{
        bool any = false;
        for (int i = 0; i < known.count; i++) {
                struct setting *setting = &known.all[i];
                if (setting->wanted || (setting->value == NULL && !setting->unsure))
                        continue;
                remote_batch_add(REMOTE_QUIET, psprintf("RESET %s", quoted(setting->name)), NULL,
                                 false);
                remember(setting, NULL);
                any = true;
        }
        return any;
}

bool settings_add(const char *encoding)
{
        struct change change = {0};
        struct config_generic **all = get_guc_variables();
        int count = GetNumConfigOptions();
        initStringInfo(&change.text);
        for (int i = 0; i < known.count; i++)
                known.all[i].wanted = false;
        for (int i = 0; i < count; i++) {
                const char *value = NULL;
                if (to_send(all[i]))
                        value = GetConfigOption(all[i]->name, true, false);
                if (value != NULL)
                        change_setting(&change, all[i]->name, value);
        }
        change_setting(&change, "client_encoding", encoding);
        /* last, as it may take the right to set others */
        change_setting(&change, "role", GetConfigOption("role", false, false));
        if (change.params.count > 0) {
                change.params.types = palloc0(sizeof(Oid) * (Size)change.params.count);
                for (int i = 0; i < change.params.count; i++)
                        change.params.types[i] = TEXTOID;
                change.params.lengths = palloc0(sizeof(int) * (Size)change.params.count);
                change.params.formats = palloc0(sizeof(int) * (Size)change.params.count);
                remote_batch_add(REMOTE_QUIET, change.text.data, &change.params, false);
        }
        return reset_others() || change.params.count > 0;
}

void settings_forget(void)
{
        for (int i = 0; i < known.count; i++) {
                pfree(known.all[i].name);
                if (known.all[i].value != NULL)
                        pfree(known.all[i].value);
        }
        known.count = 0;
}

void settings_ended(bool committed)
{
        for (int i = 0; i < known.count; i++) {
                if (!committed)
                        known.all[i].unsure |= known.all[i].tentative;
                known.all[i].tentative = false;
        }
}
