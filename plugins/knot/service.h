/* service.h - what DNS answers for services of the view: the decision, without the server.
 *
 *   _NAME._tcp.ZONE, _NAME._udp.ZONE   SRV: the instances, the nearest first (RFC 2782)
 *   NAME.service.ZONE                  A, AAAA: those of the nearest region that has some
 *   ID.NAME.service.ZONE               A, AAAA: one instance; the target of the SRV records */
#ifndef MERIDIAN_KNOT_SERVICE_H
#define MERIDIAN_KNOT_SERVICE_H

#include "answer.h"
#include "view/view.h"

#define SERVICE_TTL_S       5u
#define SERVICE_RECORDS_MAX 32u /* in one answer: the nearest ones */
#define SERVICE_RDATA_SIZE  (6u + VIEW_WIRE_SIZE)

enum service_kind {
        SERVICE_PASS,      /* not ours */
        SERVICE_EMPTY,     /* the name exists, but has nothing of that type */
        SERVICE_SRV,       /* at least one */
        SERVICE_ADDRESSES, /* at least one, of `family` */
};

struct service_answer {
        enum service_kind kind;
        uint8_t family;
        uint8_t scope_len; /* as of struct answer */
        size_t count;
        struct view_instance instances[SERVICE_RECORDS_MAX];
};

enum service_question {
        SERVICE_ASKS_A,
        SERVICE_ASKS_AAAA,
        SERVICE_ASKS_SRV,
        SERVICE_ASKS_OTHER,
};

/* `owner` and `zone` in wire form and lower case. `geo` may be NULL. */
void service_answer_make(const struct view *view, struct bytes owner, struct bytes zone,
                         enum service_question question, struct geo *geo, unsigned shard,
                         const struct answer_client *client, struct service_answer *ret);

/* The data of an instance's SRV record: priority, weight, port, target. Its length; 0 where the
 * target would be too long for a name. */
size_t service_srv_rdata(const struct view_instance *instance, struct bytes zone,
                         uint8_t rdata[SERVICE_RDATA_SIZE]);

#endif
