/* The state as bytes of one moment, made in steps while commands go on.
 *
 *   begin: what is small, at once --> VALUES --> LOCKS --> whole
 *
 * Values and locks have captures of their own, begun at the same moment; what a capture is, and how
 * it fails, is said there. What is small is bounded: the document, region states, the audit,
 * answers to repeats, sessions. The bytes are those of council_snapshot at the begin. */
#include "base/check.h"
#include "council/council_priv.h"

void council_capture_begin(struct council *council)
{
        struct council_capture *capture = &council->capture;
        CHECK(capture->stage == CAPTURE_NONE);
        buffer_init(&capture->out, council->heap);
        buffer_init(&capture->locks, council->heap);
        council_head_encode(council, &capture->out);
        if (council->kv_used)
                kv_capture_begin(council->kv, &capture->out);
        lock_capture_begin(council->locks, &capture->locks);
        capture->index = council->applied;
        capture->stage = council->kv_used ? CAPTURE_VALUES : CAPTURE_LOCKS;
}

static void locks_begin(struct council *council)
{
        struct council_capture *capture = &council->capture;
        if (capture->locks.err != ERR_NONE)
                capture->out.err = capture->locks.err;
        buffer_bytes(&capture->out, buffer_view(&capture->locks));
        buffer_fini(&capture->locks);
}

bool council_capture_step(struct council *council, size_t bytes)
{
        struct council_capture *capture = &council->capture;
        CHECK(capture->stage != CAPTURE_NONE);
        if (capture->stage == CAPTURE_VALUES) {
                if (!kv_capture_step(council->kv, bytes, &capture->out))
                        return false;
                kv_capture_end(council->kv);
                capture->stage = CAPTURE_LOCKS;
        }
        if (capture->stage == CAPTURE_LOCKS) {
                locks_begin(council);
                if (!lock_capture_step(council->locks, bytes, &capture->out))
                        return false;
                lock_capture_end(council->locks);
                capture->stage = CAPTURE_WHOLE;
        }
        return true;
}

bool council_capturing(const struct council *council)
{
        return council->capture.stage != CAPTURE_NONE;
}

enum err council_capture_end(struct council *council, struct buffer *ret, uint64_t *ret_index)
{
        struct council_capture *capture = &council->capture;
        CHECK(capture->stage == CAPTURE_WHOLE);
        enum err err = capture->out.err;
        if (err == ERR_NONE) {
                *ret = capture->out;
                *ret_index = capture->index;
                buffer_init(&capture->out, council->heap);
        }
        council_capture_drop(council);
        return err;
}

void council_capture_drop(struct council *council)
{
        struct council_capture *capture = &council->capture;
        if (capture->stage == CAPTURE_NONE)
                return;
        kv_capture_end(council->kv);
        lock_capture_end(council->locks);
        buffer_fini(&capture->out);
        buffer_fini(&capture->locks);
        *capture = (struct council_capture){0};
}
