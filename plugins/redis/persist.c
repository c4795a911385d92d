/* persist.c - metadata in RDB snapshots, as one auxiliary field before the keys, and what happens
 * around a load. The field is: slice of the keyspace's own format, then the list of keys that were
 * changed but not yet stamped, then the policies. A field that is damaged, or another region's,
 * stops the load: to go on without metadata would bring deleted keys back. */
#include "plugin.h"

enum {
        PERSIST_VERSION = 1, /* 0 had no policies */
};

void persist_incarnation(void)
{
        redis.GetRandomBytes((unsigned char *)&plugin.config.incarnation,
                             sizeof(plugin.config.incarnation));
        plugin.config.incarnation >>= 2; /* it is also a RESP integer, and 0 is none */
        plugin.config.incarnation |= 1;
}

void persist_reset(void)
{
        batch_forget();
        zset_forget();
        keyspace_free(plugin.keyspace);
        redis.GetRandomBytes((unsigned char *)&plugin.config.hash_key,
                             sizeof(plugin.config.hash_key));
        persist_incarnation();
        plugin.config.several = cluster_enabled();
        plugin.keyspace = keyspace_new(&plugin.heap, &plugin.config);
        plugin_must(plugin.keyspace == NULL ? ERR_NOMEM : ERR_NONE, "the keyspace");
        keyspace_watch(plugin.keyspace, conflict_found, NULL);
        buffer_reset(&plugin.pending);
        buffer_reset(&plugin.dirty);
        buffer_reset(&plugin.expired);
        promote_reset();
        plugin.shipped = 0;
        plugin.begun = false;
        wait_reset();
        writers_reset();
        feed_reset();
}

static void aux_save(struct redis_io *io, int when)
{
        (void)when;
        batch_drain(); /* also in the child that writes the snapshot: the stamps are given */
        struct buffer saved;
        buffer_init(&saved, &plugin.heap);
        enum err err = keyspace_save(plugin.keyspace, true, &saved);
        if (err != ERR_NONE || saved.err != ERR_NONE) {
                /* In the child that writes the snapshot: no field at all would look like a
                 * snapshot of a server without the module. */
                redis.LogIOError(io, "warning", "the metadata cannot be saved: %s", err_text(err));
                plugin_must(ERR_NOMEM, "a snapshot");
        }
        redis.SaveStringBuffer(io, (const char *)saved.ptr, saved.len);
        redis.SaveStringBuffer(io, plugin.dirty.len == 0 ? "" : (const char *)plugin.dirty.ptr,
                               plugin.dirty.len);
        struct bytes policies = policy_saved();
        redis.SaveStringBuffer(io, policies.len == 0 ? "" : (const char *)policies.ptr,
                               policies.len);
        buffer_fini(&saved);
}

static int aux_load(struct redis_io *io, int version, int when)
{
        (void)when;
        if (version > PERSIST_VERSION) {
                redis.LogIOError(io, "warning", "the metadata is of a newer Meridian");
                return REDIS_ERR;
        }
        size_t len = 0;
        size_t dirty_len = 0;
        char *saved = redis.LoadStringBuffer(io, &len);
        size_t policies_len = 0;
        char *dirty = saved == NULL ? NULL : redis.LoadStringBuffer(io, &dirty_len);
        char *policies = NULL;
        if (dirty != NULL && version > 0)
                policies = redis.LoadStringBuffer(io, &policies_len);
        enum err err = ERR_TRUNCATED;
        if (dirty != NULL && (policies != NULL || version == 0)) {
                persist_reset();
                if (policies != NULL && !policy_load(bytes_of(policies, policies_len)))
                        redis.LogIOError(io, "warning",
                                         "the policies cannot be read; the daemon "
                                         "will tell them again");
                err = keyspace_load(plugin.keyspace, bytes_of(saved, len));
                buffer_bytes(&plugin.dirty, bytes_of(dirty, dirty_len));
                plugin.saved = true;
        }
        if (saved != NULL)
                redis.Free(saved);
        if (dirty != NULL)
                redis.Free(dirty);
        if (policies != NULL)
                redis.Free(policies);
        if (err == ERR_NONE)
                return REDIS_OK;
        redis.LogIOError(io, "warning",
                         "the metadata in the snapshot cannot be used: %s. A snapshot can be "
                         "loaded only by the region that wrote it (origin %u here).",
                         err_text(err), (unsigned)plugin.config.origin);
        persist_reset();
        return REDIS_ERR;
}

bool persist_create_type(struct redis_context *ctx)
{
        struct redis_type_methods methods = {
                .version = REDIS_TYPE_VERSION,
                .aux_load = aux_load,
                .aux_save = aux_save,
                .aux_save_triggers = REDIS_AUX_BEFORE,
        };
        plugin.type = redis.CreateDataType(ctx, "meridianm", PERSIST_VERSION, &methods);
        return plugin.type != NULL;
}

void persist_loading(struct redis_context *ctx, struct redis_event event, uint64_t sub, void *data)
{
        (void)ctx;
        (void)event;
        (void)data;
        switch (sub) {
        case REDIS_LOADING_RDB:
        case REDIS_LOADING_AOF:
        case REDIS_LOADING_REPLICATION:
                persist_reset();
                plugin.saved = false;
                plugin.log_seen = false;
                flush_logged();
                plugin.loading = true;
                return;
        case REDIS_LOADING_ENDED:
        case REDIS_LOADING_FAILED:
                plugin.loading = false;
                plugin.recover = true;
                plugin.many_dbs = true; /* unknown after a load */
                plugin.shipped = UINT64_MAX;
                return;
        }
}
