/* service.c - the names of services: labels before the zone's name say what is asked. A service is
 * there as long as an instance is; a name without one is left to the zone file. */
#include "service.h"

#include <math.h>

enum {
        LABELS_MAX = 4,
};

/* The labels of a name before its zone. */
struct labels {
        struct bytes list[LABELS_MAX];
        size_t count;
};

static bool labels_read(struct bytes owner, struct bytes zone, struct labels *ret)
{
        size_t at = 0;
        ret->count = 0;
        if (owner.len <= zone.len || zone.len == 0)
                return false;
        size_t end = owner.len - zone.len;
        if (!bytes_equal(bytes_of(owner.ptr + end, zone.len), zone))
                return false;
        while (at < end) {
                size_t len = owner.ptr[at];
                if (len == 0 || len > 63 || len >= end - at || ret->count == LABELS_MAX)
                        return false;
                ret->list[ret->count++] = bytes_of(owner.ptr + at + 1, len);
                at += 1 + len;
        }
        return at == end;
}

static bool is(struct bytes label, const char *text)
{
        return bytes_equal(label, bytes_of_str(text));
}

static bool is_protocol(struct bytes label)
{
        return is(label, "_tcp") || is(label, "_udp");
}

/* What a name asks for. */
struct wanted {
        bool ours;
        bool srv;
        struct bytes service; /* empty: a name between the zone and services */
        struct bytes id;      /* empty: all */
};

static struct wanted wanted_of(const struct labels *labels)
{
        const struct bytes *list = labels->list;
        struct wanted wanted = {0};
        size_t count = labels->count;
        if (count == 0)
                return wanted;
        if (is_protocol(list[count - 1]) && count <= 2) {
                wanted.srv = true;
                wanted.ours = count == 1 || (list[0].len > 1 && list[0].ptr[0] == '_');
                if (count == 2 && wanted.ours)
                        wanted.service = bytes_of(list[0].ptr + 1, list[0].len - 1);
        } else if (is(list[count - 1], "service") && count <= 3) {
                wanted.ours = true;
                if (count >= 2)
                        wanted.service = list[count - 2];
                if (count == 3)
                        wanted.id = list[0];
        }
        return wanted;
}

static struct routing_place place_of(const struct geo_place *place)
{
        return (struct routing_place){
                .known = place->located,
                .latitude_udeg = (int32_t)lrint(place->latitude * 1e6),
                .longitude_udeg = (int32_t)lrint(place->longitude * 1e6),
        };
}

/* Keeps those that fit the question: one id, one family, one region. */
static void addresses_choose(struct service_answer *answer, const struct view_instance *found,
                             size_t count, struct bytes id)
{
        uint32_t rank = 0;
        for (size_t i = 0; i < count && answer->count < SERVICE_RECORDS_MAX; i++) {
                const struct view_instance *instance = &found[i];
                if (instance->service.family != answer->family ||
                    (id.len > 0 && !bytes_equal(instance->service.id, id)))
                        continue;
                if (answer->count > 0 && instance->rank != rank)
                        break;
                rank = instance->rank;
                answer->instances[answer->count++] = *instance;
        }
        if (answer->count > 0)
                answer->kind = SERVICE_ADDRESSES;
}

static bool instance_known(const struct view_instance *found, size_t count, struct bytes id)
{
        for (size_t i = 0; i < count; i++) {
                if (bytes_equal(found[i].service.id, id))
                        return true;
        }
        return false;
}

static void answer_fill(const struct wanted *wanted, const struct view_instance *found,
                        size_t count, enum service_question question, struct service_answer *answer)
{
        answer->kind = SERVICE_EMPTY;
        if (wanted->srv && question == SERVICE_ASKS_SRV) {
                answer->count = count < SERVICE_RECORDS_MAX ? count : SERVICE_RECORDS_MAX;
                memcpy(answer->instances, found, answer->count * sizeof *found);
                answer->kind = SERVICE_SRV;
        } else if (!wanted->srv && (question == SERVICE_ASKS_A || question == SERVICE_ASKS_AAAA)) {
                answer->family = question == SERVICE_ASKS_A ? 4 : 6;
                addresses_choose(answer, found, count, wanted->id);
        }
}

void service_answer_make(const struct view *view, struct bytes owner, struct bytes zone,
                         enum service_question question, struct geo *geo, unsigned shard,
                         const struct answer_client *client, struct service_answer *ret)
{
        struct view_instance found[VIEW_INSTANCES_MAX];
        struct geo_place place = {0};
        struct labels labels;
        ret->kind = SERVICE_PASS;
        ret->count = 0;
        ret->scope_len = 0;
        if (view->board.lists[BOARD_SERVICES].count == 0 || !labels_read(owner, zone, &labels))
                return;
        struct wanted wanted = wanted_of(&labels);
        if (!wanted.ours)
                return;
        if (wanted.service.len == 0) {
                ret->kind = SERVICE_EMPTY;
                return;
        }
        if (geo != NULL)
                place = geo_find(geo, shard, &client->address);
        struct routing_place where = place_of(&place);
        size_t count = view_nearest(view, wanted.service, &where, found, VIEW_INSTANCES_MAX);
        if (count == 0 || (wanted.id.len > 0 && !instance_known(found, count, wanted.id)))
                return;
        answer_fill(&wanted, found, count, question, ret);
        if (ret->count > 0 && client->scoped)
                ret->scope_len = place.prefix_len;
}

static size_t label_write(uint8_t *at, struct bytes label)
{
        at[0] = (uint8_t)label.len;
        memcpy(at + 1, label.ptr, label.len);
        return 1 + label.len;
}

static void u16_write(uint8_t *at, uint32_t value)
{
        at[0] = (uint8_t)(value >> 8);
        at[1] = (uint8_t)value;
}

size_t service_srv_rdata(const struct view_instance *instance, struct bytes zone,
                         uint8_t rdata[SERVICE_RDATA_SIZE])
{
        const struct board_service *service = &instance->service;
        size_t len = 6;
        if (3 + service->id.len + service->name.len + strlen("service") + zone.len >
            VIEW_WIRE_SIZE - 1)
                return 0;
        u16_write(rdata, instance->rank);
        u16_write(rdata + 2, service->weight);
        u16_write(rdata + 4, service->port);
        len += label_write(rdata + len, service->id);
        len += label_write(rdata + len, service->name);
        len += label_write(rdata + len, BYTES("service"));
        memcpy(rdata + len, zone.ptr, zone.len);
        return len + zone.len;
}
