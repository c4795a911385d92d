/* notify.c - keyspace notifications (notify-keyspace-events) of what comes from other regions.
 *
 * Where a merge runs Redis's own commands, these tell. The rest changes keys by the module
 * interface, which tells nobody: elements of lists, expiries, and keys that expired elsewhere. Of
 * these the event of the command that would have done it is sent from here, once for a change of
 * another region: a push of three elements is one event, as there. What a merge takes out of a list
 * names no command, so it is told by where it stood.
 *
 * A merge is one step to all clients, so an event may follow later in it than its change. Nothing
 * is kept or sent while no notification is configured. Nothing here fails. */
#include "plugin.h"

/* By enum notify_event; where two say the same, the first that was noted is sent first. */
static const char *const events[] = {
        [NOTIFY_LPUSH] = "lpush", [NOTIFY_RPUSH] = "rpush", [NOTIFY_LINSERT] = "linsert",
        [NOTIFY_LSET] = "lset",   [NOTIFY_LPOP] = "lpop",   [NOTIFY_RPOP] = "rpop",
        [NOTIFY_LREM] = "lrem",
};

static struct {
        bool expired;  /* the delta whose calls come is of a key that expired elsewhere */
        uint8_t where; /* it inserts there: enum crdt_list_where */
        uint32_t db;
        struct buffer key; /* whose events are noted */
        unsigned noted;    /* 1 << enum notify_event */
} told;

bool notify_wanted(void)
{
        return redis.GetNotifyKeyspaceEvents() != 0;
}

void notify_send(int type, const char *event, struct redis_string *key)
{
        bool telling = plugin.telling;
        plugin.telling = true;
        redis.NotifyKeyspaceEvent(native_context(), type, event, key);
        plugin.telling = telling;
}

void notify_begin(void *context, const struct crdt_delta *delta)
{
        (void)context;
        notify_settle();
        told.expired = delta->op == CRDT_OP_EXPIRED;
        told.where = delta->op == CRDT_OP_LIST_INSERT && delta->list.len > 0 ? delta->list.ptr[0]
                                                                             : CRDT_LIST_TAIL;
}

void notify_end(void)
{
        notify_settle();
        told.expired = false;
        told.where = CRDT_LIST_TAIL;
}

bool notify_expired(void)
{
        return told.expired && notify_wanted();
}

enum notify_event notify_pushed(void)
{
        return told.where == CRDT_LIST_HEAD      ? NOTIFY_LPUSH
               : told.where == CRDT_LIST_BETWEEN ? NOTIFY_LINSERT
                                                 : NOTIFY_RPUSH;
}

void notify_list(struct crdt_name name, enum notify_event event)
{
        if (!notify_wanted())
                return;
        if (told.key.heap == NULL)
                buffer_init(&told.key, &plugin.heap);
        if (told.noted != 0 &&
            (told.db != name.db || !bytes_equal(buffer_view(&told.key), name.key)))
                notify_settle();
        if (told.noted == 0) {
                buffer_reset(&told.key);
                buffer_bytes(&told.key, name.key);
                plugin_must(told.key.err, "a notification");
                told.db = name.db;
        }
        told.noted |= 1u << event;
}

static bool key_is_there(struct redis_string *key)
{
        struct redis_key *open = redis.OpenKey(native_context(), key, REDIS_READ);
        bool there = open != NULL && redis.KeyType(open) != REDIS_KEY_EMPTY;
        if (open != NULL)
                redis.CloseKey(open);
        return there;
}

void notify_settle(void)
{
        if (told.noted == 0)
                return;
        const unsigned taken = 1u << NOTIFY_LPOP | 1u << NOTIFY_RPOP | 1u << NOTIFY_LREM;
        unsigned noted = told.noted;
        struct bytes name = buffer_view(&told.key);
        told.noted = 0;
        redis.SelectDb(native_context(), (int)told.db);
        struct redis_string *key =
                redis.CreateString(NULL, name.len == 0 ? "" : (const char *)name.ptr, name.len);
        for (unsigned i = 0; i < COUNT_OF(events); i++)
                if ((noted >> i & 1) != 0)
                        notify_send(REDIS_NOTIFY_LIST, events[i], key);
        if ((noted & taken) != 0 && !key_is_there(key))
                notify_send(REDIS_NOTIFY_GENERIC, "del", key);
        redis.FreeString(NULL, key);
}
