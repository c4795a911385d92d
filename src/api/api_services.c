/* api_services.c - GET /services/NAME: the instances of a service as this node's copy of the global
 * values has them, so it is answered without a majority: those of the own region first, then by
 * round trip, those of regions that get no traffic last. */
#include "api/api_priv.h"

#include "board/board.h"
#include "node/status.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX        "/services/"
#define INSTANCES_MAX KV_ITEMS_MAX

struct instance {
        struct board_service service;
        bool routable;
        bool known;      /* how far it is */
        uint64_t rtt_us; /* from the own region */
};

bool api_services_request(const char *path, struct buffer *key, struct buffer *txn,
                          struct request *request)
{
        struct bytes name = bytes_of_str(path + strlen(PREFIX));
        struct kv_build build;
        if (!board_label_valid(name))
                return false;
        buffer_reset(key);
        buffer_format(key, BOARD_SERVICE_PREFIX "%.*s/", BYTES_ARGS(name));
        struct kv_step step = {.op = KV_RANGE, .key = buffer_view(key), .flags = KV_PREFIX};
        kv_build_init(&build, key->heap);
        kv_build_step(&build, false, &step);
        buffer_reset(txn);
        enum err err = kv_build_end(&build, txn);
        kv_build_fini(&build);
        *request = (struct request){.kind = REQUEST_KV};
        request->kv.key = buffer_view(key);
        request->kv.txn = buffer_view(txn);
        request->kv.stale = true;
        return err == ERR_NONE && key->err == ERR_NONE;
}

static void instance_place(const struct node_status *status, struct instance *instance)
{
        const struct node_status_region *self = NULL;
        for (size_t i = 0; i < status->region_count; i++) {
                if (status->regions[i].id == status->region)
                        self = &status->regions[i];
        }
        instance->routable = true;
        for (size_t i = 0; i < status->region_count; i++) {
                const struct node_status_region *region = &status->regions[i];
                if (!bytes_equal(bytes_of_str(region->name), instance->service.region))
                        continue;
                instance->routable = region->routable;
                instance->known = region == self || (self != NULL && self->rtt_known[i]);
                instance->rtt_us = region == self || self == NULL ? 0 : self->rtt_us[i];
        }
}

static int instance_compare(const void *left, const void *right)
{
        const struct instance *a = left;
        const struct instance *b = right;
        if (a->routable != b->routable)
                return a->routable ? -1 : 1;
        if (a->known != b->known)
                return a->known ? -1 : 1;
        if (a->rtt_us != b->rtt_us)
                return a->rtt_us < b->rtt_us ? -1 : 1;
        if (a->service.weight != b->service.weight)
                return a->service.weight > b->service.weight ? -1 : 1;
        return bytes_compare(a->service.id, b->service.id);
}

static json_t *json_instance(const struct instance *instance)
{
        char host[INET6_ADDRSTRLEN] = "";
        const struct board_service *service = &instance->service;
        json_t *region = service->region.len == 0 ? json_null()
                                                  : json_stringn((const char *)service->region.ptr,
                                                                 service->region.len);
        (void)inet_ntop(service->family == 4 ? AF_INET : AF_INET6, service->address, host,
                        sizeof host);
        return json_pack("{s:o, s:s, s:i, s:i, s:o, s:b, s:o}", "id",
                         json_stringn((const char *)service->id.ptr, service->id.len), "host", host,
                         "port", (int)service->port, "weight", (int)service->weight, "region",
                         region, "routable", (int)instance->routable, "rtt_ms",
                         instance->known ? json_real((double)instance->rtt_us / 1000)
                                         : json_null());
}

/* What cannot be read as an instance is left out, as in the view. */
static size_t instances_read(const struct api *api, struct kv_reading *reading,
                             struct instance *instances)
{
        struct kv_answer_step step;
        struct kv_item item;
        size_t count = 0;
        size_t prefix = strlen(BOARD_SERVICE_PREFIX);
        const struct node_status *status = api->host.status(api->host.context);
        if (!kv_result_step(reading, &step))
                return 0;
        while (count < INSTANCES_MAX && kv_result_item(reading, &item)) {
                struct instance *instance = &instances[count];
                struct bytes key = bytes_of(item.key.ptr + prefix, item.key.len - prefix);
                *instance = (struct instance){0};
                if (item.key.len < prefix ||
                    board_service_parse(key, item.value, &instance->service) != ERR_NONE)
                        continue;
                instance_place(status, instance);
                count++;
        }
        return count;
}

json_t *api_services_reply(const struct api *api, const struct reply *reply, unsigned *ret_status)
{
        struct kv_reading reading;
        struct instance *instances = calloc(INSTANCES_MAX, sizeof *instances);
        json_t *list = json_array();
        if (instances == NULL || kv_result_open(reply->kv.result, &reading) != ERR_NONE) {
                free(instances);
                json_decref(list);
                return NULL;
        }
        size_t count = instances_read(api, &reading, instances);
        qsort(instances, count, sizeof *instances, instance_compare);
        for (size_t i = 0; i < count; i++)
                json_array_append_new(list, json_instance(&instances[i]));
        free(instances);
        *ret_status = count == 0 ? 404 : 200;
        if (count == 0) {
                json_decref(list);
                return json_pack("{s:s, s:s}", "code", "NOTFOUND", "error",
                                 "no instance of that service is registered");
        }
        return json_pack("{s:I, s:o}", "revision", (json_int_t)reading.head.revision, "instances",
                         list);
}
