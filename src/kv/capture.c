/* The space's bytes as of one moment, made in steps while transactions go on.
 *
 *   begin: head, ids --> step: versions by revision --> ... --> all
 *                          ^ a version that is about to be forgotten, and has not come by yet, is
 *                            encoded at once and waits for its turn
 *
 * A version never changes but in whether its key keeps it. What is written later has a larger
 * revision, and stands behind the end of the walk. The bytes are those of kv_encode at the begin.
 *
 * Failure: without memory for a version that goes, the capture is lost, and the space is not. */
#include "base/check.h"
#include "base/put.h"
#include "kv/kv_priv.h"

static size_t slice_size(size_t len)
{
        return put_varint_len(len) + len;
}

size_t kv_version_size(const struct version *version)
{
        return 1 + put_varint_len(version->revision) + put_varint_len(version->created) +
               put_varint_len(version->count) + put_varint_len(version->session) +
               put_varint_len(version->wall_us) + slice_size(version->entry->key.len) +
               slice_size(version->value.len) + slice_size(version->actor.len);
}

static struct turn turn_of(const struct version *version)
{
        return (struct turn){.number = version->revision, .place = version->ordinal};
}

/* Has it come by? */
static bool passed(const struct kv_capture *capture, const struct version *version)
{
        struct turn turn = turn_of(version);
        struct turn next = {.number = UINT64_MAX};
        if (capture->next != NULL)
                next = turn_of(capture->next);
        return turn_before(&turn, &next);
}

void kv_capture_save(struct kv *kv, struct version *version)
{
        struct kv_capture *capture = &kv->capture;
        if (!capture->open || version->saved || version->revision > capture->revision ||
            passed(capture, version) || capture->err != ERR_NONE)
                return;
        size_t at = capture->turns.bytes.len;
        kv_version_encode(version, &capture->turns.bytes);
        if (!turns_add(&capture->turns, version->revision, version->ordinal, at))
                capture->err = ERR_NOMEM;
        version->saved = true;
}

void kv_capture_begin(struct kv *kv, struct buffer *out)
{
        struct kv_capture *capture = &kv->capture;
        CHECK(!capture->open);
        *capture = (struct kv_capture){.open = true, .revision = kv->revision, .next = kv->first};
        turns_init(&capture->turns, kv->heap);
        /* The head aside first, to know how long it is. */
        struct buffer *head = &capture->turns.bytes;
        kv_head_encode(kv, head);
        buffer_varint(out, head->len + kv->encoded_bytes);
        buffer_bytes(out, buffer_view(head));
        capture->err = head->err;
        buffer_reset(head);
}

static bool capture_saved(struct kv_capture *capture, struct buffer *out)
{
        const struct turn *turn = turns_next(&capture->turns);
        if (turn == NULL)
                return false;
        if (capture->next != NULL) {
                struct turn next = turn_of(capture->next);
                if (turn_before(&next, turn))
                        return false;
        }
        turns_take(&capture->turns, out);
        return true;
}

bool kv_capture_step(struct kv *kv, size_t bytes, struct buffer *out)
{
        struct kv_capture *capture = &kv->capture;
        CHECK(capture->open);
        size_t end = out->len + bytes;
        while (out->len < end && capture->err == ERR_NONE && out->err == ERR_NONE) {
                if (capture_saved(capture, out))
                        continue;
                struct version *next = capture->next;
                if (next == NULL || next->revision > capture->revision)
                        return true;
                if (!next->saved)
                        kv_version_encode(next, out);
                next->saved = false;
                capture->next = next->next;
        }
        if (capture->err != ERR_NONE)
                out->err = capture->err;
        return out->err != ERR_NONE;
}

void kv_capture_end(struct kv *kv)
{
        struct kv_capture *capture = &kv->capture;
        if (!capture->open)
                return;
        for (struct version *v = capture->next; v != NULL && v->revision <= capture->revision;
             v = v->next)
                v->saved = false;
        turns_fini(&capture->turns);
        *capture = (struct kv_capture){0};
}
