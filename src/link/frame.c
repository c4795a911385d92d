/* Messages in a stream of bytes: a varint length (LEB128, no longer than needed), then the body. A
 * length above the limit of the class, or a longer spelling than needed, is malformed. The body
 * grows as its bytes come, so an announced length alone costs nothing. */
#include "base/check.h"
#include "link/link_priv.h"

const size_t link_message_max[WORLD_CLASS_COUNT] = {
        [WORLD_CLASS_CONTROL] = LINK_MESSAGE_CONTROL,
        [WORLD_CLASS_DATA] = LINK_MESSAGE_DATA,
        [WORLD_CLASS_TUNNEL] = LINK_MESSAGE_TUNNEL,
        [WORLD_CLASS_BULK] = LINK_MESSAGE_BULK,
};

const size_t link_queue_max[WORLD_CLASS_COUNT] = {
        [WORLD_CLASS_CONTROL] = LINK_QUEUE_CONTROL,
        [WORLD_CLASS_DATA] = LINK_QUEUE_DATA,
        [WORLD_CLASS_TUNNEL] = LINK_QUEUE_TUNNEL,
        [WORLD_CLASS_BULK] = LINK_QUEUE_BULK,
};

/* Lengths are below 2^28, so four bytes of seven bits hold them. */
#define HEAD_BITS_MAX  28
#define HEAD_BYTES_MAX 4
_Static_assert(LINK_MESSAGE_CONTROL < (size_t)1 << HEAD_BITS_MAX, "a length fits its varint");
_Static_assert(LINK_MESSAGE_CONTROL + HEAD_BYTES_MAX <= LINK_QUEUE_CONTROL, "the queue holds one");
_Static_assert(LINK_MESSAGE_DATA + HEAD_BYTES_MAX <= LINK_QUEUE_DATA, "the queue holds one");
_Static_assert(LINK_MESSAGE_TUNNEL + HEAD_BYTES_MAX <= LINK_QUEUE_TUNNEL, "the queue holds one");
_Static_assert(LINK_MESSAGE_BULK + HEAD_BYTES_MAX <= LINK_QUEUE_BULK, "the queue holds one");

/* A body buffer that has grown beyond this is given back after its message. */
#define BODY_KEPT ((size_t)1 << 20)

void assembler_init(struct assembler *assembler, struct heap *heap, size_t body_max)
{
        memset(assembler, 0, sizeof *assembler);
        buffer_init(&assembler->body, heap);
        assembler->body_max = body_max;
}

void assembler_fini(struct assembler *assembler)
{
        buffer_fini(&assembler->body);
}

static void assembler_begin(struct assembler *assembler)
{
        assembler->body_len = 0;
        assembler->head_bits = 0;
        assembler->head_done = false;
        assembler->delivered = false;
        if (assembler->body.size > BODY_KEPT) {
                struct heap *heap = assembler->body.heap;
                buffer_fini(&assembler->body);
                buffer_init(&assembler->body, heap);
        }
        buffer_reset(&assembler->body);
}

static struct bytes bytes_take(struct bytes *data, size_t len)
{
        struct bytes taken = bytes_of(data->ptr, len);
        *data = bytes_of(data->ptr + len, data->len - len);
        return taken;
}

/* Reads the length as far as there are bytes. */
static enum err head_read(struct assembler *assembler, struct bytes *data)
{
        while (!assembler->head_done && data->len > 0) {
                uint8_t byte = bytes_take(data, 1).ptr[0];
                bool padded = byte == 0 && assembler->head_bits > 0;
                if (padded || assembler->head_bits >= HEAD_BITS_MAX)
                        return ERR_MALFORMED;
                assembler->body_len |= (uint64_t)(byte & 0x7f) << assembler->head_bits;
                assembler->head_bits += 7;
                assembler->head_done = (byte & 0x80) == 0;
        }
        return assembler->body_len > assembler->body_max ? ERR_MALFORMED : ERR_NONE;
}

/* A body that lies whole in `data` is not copied. */
static bool body_read(struct assembler *assembler, struct bytes *data, struct bytes *ret_body)
{
        size_t need = (size_t)assembler->body_len - assembler->body.len;
        if (assembler->body.len == 0 && data->len >= need) {
                *ret_body = bytes_take(data, need);
                return true;
        }
        buffer_bytes(&assembler->body, bytes_take(data, data->len < need ? data->len : need));
        *ret_body = buffer_view(&assembler->body);
        return assembler->body.len == assembler->body_len;
}

bool assembler_next(struct assembler *assembler, struct bytes *data, struct bytes *ret_message,
                    enum err *ret_err)
{
        if (assembler->delivered)
                assembler_begin(assembler);
        *ret_err = head_read(assembler, data);
        if (*ret_err != ERR_NONE || !assembler->head_done)
                return false;
        assembler->delivered = body_read(assembler, data, ret_message);
        *ret_err = assembler->body.err;
        return assembler->delivered && *ret_err == ERR_NONE;
}

struct queue_node {
        struct queue_node *next;
        size_t len;
        size_t at; /* what was pulled already */
        uint8_t data[];
};

void queue_init(struct queue *queue, struct heap *heap)
{
        *queue = (struct queue){.heap = heap};
}

static void queue_drop_first(struct queue *queue)
{
        struct queue_node *node = queue->first;
        queue->first = node->next;
        if (queue->first == NULL)
                queue->last = NULL;
        heap_free(queue->heap, node);
}

void queue_clear(struct queue *queue)
{
        while (queue->first != NULL)
                queue_drop_first(queue);
        queue->bytes = 0;
}

static size_t head_write(uint8_t head[HEAD_BYTES_MAX], size_t len)
{
        size_t used = 0;
        while (len >= 0x80) {
                head[used++] = (uint8_t)(len | 0x80);
                len >>= 7;
        }
        head[used++] = (uint8_t)len;
        return used;
}

enum err queue_push(struct queue *queue, struct bytes message)
{
        uint8_t head[HEAD_BYTES_MAX];
        CHECK(message.len <= LINK_MESSAGE_CONTROL);
        size_t head_len = head_write(head, message.len);
        struct queue_node *node = heap_alloc(queue->heap, sizeof *node + head_len + message.len);
        if (node == NULL)
                return ERR_NOMEM;
        node->len = head_len + message.len;
        memcpy(node->data, head, head_len);
        if (message.len > 0)
                memcpy(node->data + head_len, message.ptr, message.len);
        if (queue->last == NULL)
                queue->first = node;
        else
                queue->last->next = node;
        queue->last = node;
        queue->bytes += node->len;
        return ERR_NONE;
}

size_t queue_pull(struct queue *queue, uint8_t *buffer, size_t size)
{
        size_t used = 0;
        while (used < size && queue->first != NULL) {
                struct queue_node *node = queue->first;
                size_t len = node->len - node->at;
                if (len > size - used)
                        len = size - used;
                memcpy(buffer + used, node->data + node->at, len);
                node->at += len;
                used += len;
                if (node->at == node->len)
                        queue_drop_first(queue);
        }
        CHECK(used <= queue->bytes);
        queue->bytes -= used;
        return used;
}
