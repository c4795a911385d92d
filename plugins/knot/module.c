/* module.c - mod-meridian: Knot's hooks around answer.c and service.c.
 *
 * Before the zone is asked (PREANSWER), a name of the view, or of a service, is answered, or is
 * said to exist without data, which Knot keeps unless the zone file has some. After it (ANSWER),
 * the same is done for the target of an alias of the zone file. A malformed client-subnet option
 * ends the query with FORMERR.
 *
 * One thread of the module looks after the view and the geo database once a second and logs what
 * changes. The query path takes no lock, makes no system call and allocates from the packet alone.
 * It fails only where the packet has no room or memory left, as Knot's own answers do. */
#include "answer.h"
#include "client_subnet.h"
#include "service.h"

#include <knot/module.h>

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#define REFRESH_MS  1000
#define STALE_US    30000000u
#define REASON_SIZE 512

static const yp_name_t item_view[] = "\x04"
                                     "view";
static const yp_name_t item_geo[] = "\x03"
                                    "geo";

static const yp_item_t module_items[] = {
        {item_view, YP_TSTR, YP_VNONE},
        {item_geo, YP_TSTR, YP_VNONE},
        {.name = NULL},
};

/* What was logged last about a file, so that it is said once. */
struct report {
        enum err err;
        bool said;
};

struct module {
        knotd_mod_t *mod;
        struct view_reader *reader;
        struct geo *geo; /* NULL: not configured */
        struct report view_report;
        struct report geo_report;
        struct report stale_report;
        pthread_t thread;
        pthread_mutex_t mutex; /* of `stopping`; never taken by a query */
        pthread_cond_t wake;
        bool stopping;
        bool thread_started;
        struct answer_cache cache;
};

/* Looking after the files. */

static void report(struct module *module, struct report *last, enum err err, const char *good,
                   const char *bad)
{
        if (last->said && last->err == err)
                return;
        if (err == ERR_NONE)
                knotd_mod_log(module->mod, LOG_INFO, "%s", good);
        else
                knotd_mod_log(module->mod, LOG_WARNING, "%s", bad);
        *last = (struct report){err, true};
}

static uint64_t wall_us(void)
{
        struct timespec now;
        (void)clock_gettime(CLOCK_REALTIME, &now);
        return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

static void view_look(struct module *module)
{
        char why[REASON_SIZE];
        enum err err = view_reader_refresh(module->reader, why, sizeof why);
        if (err != ERR_BUSY)
                report(module, &module->view_report, err, "the view is in use", why);
        const struct view *view = view_enter(module->reader, 0);
        if (view == NULL)
                return;
        bool stale = wall_us() > view->wall_us + STALE_US;
        view_leave(module->reader, 0, view);
        report(module, &module->stale_report, stale ? ERR_TIMEOUT : ERR_NONE, "the view is fresh",
               "the view is older than 30 s: is meridiand running? Its last state stays in use");
}

static void geo_look(struct module *module)
{
        char why[REASON_SIZE];
        bool changed = false;
        if (module->geo == NULL)
                return;
        enum err err = geo_refresh(module->geo, &changed, why, sizeof why);
        if (changed)
                module->geo_report.said = false;
        if (err != ERR_BUSY)
                report(module, &module->geo_report, err, "the geo database is in use", why);
}

static void deadline_after(struct timespec *ret, long ms)
{
        (void)clock_gettime(CLOCK_MONOTONIC, ret);
        ret->tv_sec += ms / 1000;
        ret->tv_nsec += ms % 1000 * 1000000;
        if (ret->tv_nsec >= 1000000000) {
                ret->tv_sec++;
                ret->tv_nsec -= 1000000000;
        }
}

static bool wait_or_stop(struct module *module)
{
        struct timespec until;
        deadline_after(&until, REFRESH_MS);
        (void)pthread_mutex_lock(&module->mutex);
        int code = 0;
        while (!module->stopping && code == 0)
                code = pthread_cond_timedwait(&module->wake, &module->mutex, &until);
        bool stopping = module->stopping;
        (void)pthread_mutex_unlock(&module->mutex);
        return stopping;
}

static void *look_after(void *data)
{
        struct module *module = data;
        while (!wait_or_stop(module)) {
                view_look(module);
                geo_look(module);
        }
        return NULL;
}

/* Knot handles signals in threads of its choice, never here. */
static bool thread_start(struct module *module)
{
        sigset_t all, before;
        (void)sigfillset(&all);
        (void)pthread_sigmask(SIG_SETMASK, &all, &before);
        module->thread_started = pthread_create(&module->thread, NULL, look_after, module) == 0;
        (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
        return module->thread_started;
}

static void thread_stop(struct module *module)
{
        if (!module->thread_started)
                return;
        (void)pthread_mutex_lock(&module->mutex);
        module->stopping = true;
        (void)pthread_cond_signal(&module->wake);
        (void)pthread_mutex_unlock(&module->mutex);
        (void)pthread_join(module->thread, NULL);
}

/* Queries. */

/* Which family a question is about: 0 is neither. ANY gets addresses of one family (RFC 8482). */
static uint8_t family_of(uint16_t type)
{
        switch (type) {
        case KNOT_RRTYPE_A:
        case KNOT_RRTYPE_ANY:
                return 4;
        case KNOT_RRTYPE_AAAA:
                return 6;
        default:
                return 0;
        }
}

/* The one client-subnet option, and who is asking. False: FORMERR. Knot has parsed it already
 * (qdata->ecs), but lets some malformed ones pass. */
static bool client_find(const knotd_qdata_t *qdata, struct answer_client *ret)
{
        uint8_t source_len = 0;
        if (qdata->ecs != NULL) {
                uint8_t *option =
                        knot_pkt_edns_option(qdata->query, KNOT_EDNS_OPTION_CLIENT_SUBNET);
                if (option == NULL)
                        return false;
                struct bytes data =
                        bytes_of(knot_edns_opt_get_data(option), knot_edns_opt_get_length(option));
                if (!client_subnet_parse(data, &ret->address, &source_len))
                        return false;
        }
        ret->scoped = source_len > 0;
        if (!ret->scoped)
                ret->address = geo_address_of((const struct sockaddr *)qdata->params->remote);
        return true;
}

/* The answer, authoritative, and for which of the client's network it is. */
static knotd_in_state_t rrset_put(const knot_rrset_t *rrset, uint16_t compression,
                                  uint8_t scope_len, knot_pkt_t *pkt, knotd_qdata_t *qdata)
{
        int code = knot_pkt_put(pkt, compression, rrset, 0);
        if (code == KNOT_ESPACE)
                return KNOTD_IN_STATE_TRUNC;
        if (code != KNOT_EOK)
                return KNOTD_IN_STATE_ERROR;
        knot_wire_set_aa(pkt->wire);
        if (qdata->ecs != NULL)
                qdata->ecs->scope_len = scope_len;
        return KNOTD_IN_STATE_HIT;
}

static knotd_in_state_t addresses_put(const struct answer *answer, knot_pkt_t *pkt,
                                      knotd_qdata_t *qdata, const knot_dname_t *owner,
                                      uint16_t compression)
{
        union {
                const knot_dname_t *read;
                knot_dname_t *any;
        } name = {.read = owner};
        knot_rrset_t rrset;
        uint16_t type = answer->family == 4 ? KNOT_RRTYPE_A : KNOT_RRTYPE_AAAA;
        uint16_t len = answer->family == 4 ? 4 : 16;
        knot_rrset_init(&rrset, name.any, type, KNOT_CLASS_IN, answer->ttl_s);
        for (uint32_t i = 0; i < answer->count; i++) {
                const uint8_t *octets = answer->addresses[i].bytes;
                if (knot_rrset_add_rdata(&rrset, octets, len, &pkt->mm) != KNOT_EOK)
                        return KNOTD_IN_STATE_ERROR;
        }
        return rrset_put(&rrset, compression, answer->scope_len, pkt, qdata);
}

static struct answer answer_find(const struct view *view, struct module *module,
                                 knotd_qdata_t *qdata, const knot_dname_t *owner,
                                 const struct answer_client *client)
{
        uint16_t type = knot_pkt_qtype(qdata->query);
        uint8_t family = family_of(type);
        struct bytes wire = bytes_of(owner, knot_dname_size(owner));
        const struct view_name *name = view_name_find(view, wire);
        unsigned shard = qdata->params->thread_id;
        if (name == NULL || family == 0)
                return (struct answer){.kind = name == NULL ? ANSWER_PASS : ANSWER_EMPTY};
        struct answer answer =
                answer_make(view, name, family, module->geo, &module->cache, shard, client);
        if (answer.kind == ANSWER_EMPTY && type == KNOT_RRTYPE_ANY)
                answer = answer_make(view, name, 6, module->geo, &module->cache, shard, client);
        return answer;
}

/* Services. */

static enum service_question question_of(uint16_t type)
{
        switch (type) {
        case KNOT_RRTYPE_A:
                return SERVICE_ASKS_A;
        case KNOT_RRTYPE_AAAA:
                return SERVICE_ASKS_AAAA;
        case KNOT_RRTYPE_SRV:
                return SERVICE_ASKS_SRV;
        default:
                return SERVICE_ASKS_OTHER;
        }
}

static int service_add(knot_rrset_t *rrset, const struct service_answer *answer, size_t i,
                       struct bytes zone, knot_mm_t *mm)
{
        uint8_t rdata[SERVICE_RDATA_SIZE];
        const struct view_instance *instance = &answer->instances[i];
        if (answer->kind == SERVICE_ADDRESSES)
                return knot_rrset_add_rdata(rrset, instance->service.address,
                                            answer->family == 4 ? 4 : 16, mm);
        size_t len = service_srv_rdata(instance, zone, rdata);
        return len == 0 ? KNOT_EOK : knot_rrset_add_rdata(rrset, rdata, (uint16_t)len, mm);
}

static knotd_in_state_t service_put(const struct service_answer *answer, struct bytes zone,
                                    knot_pkt_t *pkt, knotd_qdata_t *qdata,
                                    const knot_dname_t *owner)
{
        union {
                const knot_dname_t *read;
                knot_dname_t *any;
        } name = {.read = owner};
        knot_rrset_t rrset;
        uint16_t type = KNOT_RRTYPE_SRV;
        if (answer->kind == SERVICE_ADDRESSES)
                type = answer->family == 4 ? KNOT_RRTYPE_A : KNOT_RRTYPE_AAAA;
        knot_rrset_init(&rrset, name.any, type, KNOT_CLASS_IN, SERVICE_TTL_S);
        for (size_t i = 0; i < answer->count; i++) {
                if (service_add(&rrset, answer, i, zone, &pkt->mm) != KNOT_EOK)
                        return KNOTD_IN_STATE_ERROR;
        }
        if (rrset.rrs.count == 0)
                return KNOTD_IN_STATE_NODATA;
        return rrset_put(&rrset, KNOT_COMPR_HINT_QNAME, answer->scope_len, pkt, qdata);
}

/* `state` where it is no service's name. */
static knotd_in_state_t service_find(const struct view *view, struct module *module,
                                     knotd_in_state_t state, knot_pkt_t *pkt, knotd_qdata_t *qdata,
                                     const struct answer_client *client)
{
        struct service_answer answer;
        const knot_dname_t *owner = knot_pkt_qname(qdata->query);
        const knot_dname_t *zone_name = knotd_qdata_zone_name(qdata);
        if (zone_name == NULL)
                return state;
        struct bytes zone = bytes_of(zone_name, knot_dname_size(zone_name));
        service_answer_make(view, bytes_of(owner, knot_dname_size(owner)), zone,
                            question_of(knot_pkt_qtype(qdata->query)), module->geo,
                            qdata->params->thread_id, client, &answer);
        if (answer.kind == SERVICE_PASS)
                return state;
        if (answer.kind == SERVICE_EMPTY)
                return KNOTD_IN_STATE_NODATA;
        return service_put(&answer, zone, pkt, qdata, owner);
}

/* Knot echoes the option, and has kept room in the answer for as many octets as came. If the source
 * says otherwise, the echo would be malformed itself, so it is made to fit. */
static knotd_in_state_t refuse(knotd_qdata_t *qdata)
{
        uint8_t *option = knot_pkt_edns_option(qdata->query, KNOT_EDNS_OPTION_CLIENT_SUBNET);
        knot_edns_client_subnet_t *echo = qdata->ecs;
        if (echo != NULL && option != NULL) {
                unsigned octets = knot_edns_opt_get_length(option) - 4u;
                if (octets <= KNOT_EDNS_CLIENT_SUBNET_ADDRESS_MAXLEN &&
                    octets != (echo->source_len + 7u) / 8u) {
                        echo->family = octets <= 4 ? 1 : 2;
                        echo->source_len = (uint8_t)(octets * 8u);
                }
        }
        qdata->rcode = KNOT_RCODE_FORMERR;
        return KNOTD_IN_STATE_ERROR;
}

static knotd_in_state_t before_zone(knotd_in_state_t state, knot_pkt_t *pkt, knotd_qdata_t *qdata,
                                    knotd_mod_t *mod)
{
        struct module *module = knotd_mod_ctx(mod);
        struct answer_client client = {0};
        if (!client_find(qdata, &client)) {
                return refuse(qdata);
        }
        if (state != KNOTD_IN_STATE_BEGIN)
                return state;
        unsigned shard = qdata->params->thread_id;
        const struct view *view = view_enter(module->reader, shard);
        if (view == NULL)
                return state;
        const knot_dname_t *owner = knot_pkt_qname(qdata->query);
        struct answer answer = answer_find(view, module, qdata, owner, &client);
        if (answer.kind == ANSWER_EMPTY)
                state = KNOTD_IN_STATE_NODATA;
        else if (answer.kind == ANSWER_ADDRESSES)
                state = addresses_put(&answer, pkt, qdata, owner, KNOT_COMPR_HINT_QNAME);
        else
                state = service_find(view, module, state, pkt, qdata, &client);
        view_leave(module->reader, shard, view);
        return state;
}

/* Only what an alias of the zone file led to: its own name was dealt with above. */
static knotd_in_state_t after_zone(knotd_in_state_t state, knot_pkt_t *pkt, knotd_qdata_t *qdata,
                                   knotd_mod_t *mod)
{
        struct module *module = knotd_mod_ctx(mod);
        struct answer_client client = {0};
        bool open = state == KNOTD_IN_STATE_MISS || state == KNOTD_IN_STATE_NODATA;
        if (!open || qdata->name == NULL || qdata->name == knot_pkt_qname(qdata->query) ||
            !client_find(qdata, &client))
                return state;
        unsigned shard = qdata->params->thread_id;
        const struct view *view = view_enter(module->reader, shard);
        if (view == NULL)
                return state;
        struct answer answer = answer_find(view, module, qdata, qdata->name, &client);
        if (answer.kind == ANSWER_EMPTY)
                state = KNOTD_IN_STATE_NODATA;
        else if (answer.kind == ANSWER_ADDRESSES)
                state = addresses_put(&answer, pkt, qdata, qdata->name, KNOT_COMPR_HINT_NONE);
        if (answer.kind != ANSWER_PASS)
                qdata->rcode = KNOT_RCODE_NOERROR;
        view_leave(module->reader, shard, view);
        return state;
}

/* Loading. */

static void module_free(struct module *module)
{
        thread_stop(module);
        (void)pthread_cond_destroy(&module->wake);
        (void)pthread_mutex_destroy(&module->mutex);
        geo_free(module->geo);
        view_reader_free(module->reader);
        free(module);
}

static void locks_init(struct module *module)
{
        pthread_condattr_t attributes;
        (void)pthread_condattr_init(&attributes);
        (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        (void)pthread_cond_init(&module->wake, &attributes);
        (void)pthread_condattr_destroy(&attributes);
        (void)pthread_mutex_init(&module->mutex, NULL);
}

static struct module *module_new(knotd_mod_t *mod)
{
        struct module *module = calloc(1, sizeof *module);
        if (module == NULL)
                return NULL;
        locks_init(module);
        module->mod = mod;
        knotd_conf_t view = knotd_conf_mod(mod, item_view);
        knotd_conf_t geo = knotd_conf_mod(mod, item_geo);
        bool geo_wanted = geo.count > 0 && geo.single.string != NULL;
        module->reader = view_reader_new(view.single.string);
        if (geo_wanted)
                module->geo = geo_new(geo.single.string);
        if (module->reader == NULL || (geo_wanted && module->geo == NULL)) {
                module_free(module);
                return NULL;
        }
        return module;
}

static int module_load(knotd_mod_t *mod)
{
        struct module *module = module_new(mod);
        if (module == NULL)
                return KNOT_ENOMEM;
        view_look(module);
        geo_look(module);
        if (!thread_start(module)) {
                knotd_mod_log(mod, LOG_ERR, "no thread could be started");
                module_free(module);
                return KNOT_ERROR;
        }
        knotd_mod_ctx_set(mod, module);
        int code = knotd_mod_in_hook(mod, KNOTD_STAGE_PREANSWER, before_zone);
        if (code == KNOT_EOK)
                code = knotd_mod_in_hook(mod, KNOTD_STAGE_ANSWER, after_zone);
        return code;
}

static void module_unload(knotd_mod_t *mod)
{
        struct module *module = knotd_mod_ctx(mod);
        if (module != NULL)
                module_free(module);
}

static int module_check(knotd_conf_check_args_t *args)
{
        knotd_conf_t view = knotd_conf_check_item(args, item_view);
        if (view.count > 0)
                return KNOT_EOK;
        args->err_str = "'view' is missing: the path of the file that meridiand publishes";
        return KNOT_EINVAL;
}

extern const knotd_mod_api_t knotd_mod_api;

KNOTD_MOD_API(meridian, KNOTD_MOD_FLAG_SCOPE_ZONE, module_load, module_unload, module_items,
              module_check);
