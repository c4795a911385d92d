/* api_redis.c - the idioms by which clients of Redis lock, so that they work with this door as they
 * are. A lock's value is its owner:
 *
 *   SET key value NX PX ms   acquire; nil where anybody holds it, that value included
 *   GET key                  the newest holder's value, as of the log
 *   EVAL, EVALSHA            exactly the scripts below: release, or a longer lease, where the value
 *                            is the holder's
 *
 * Scripts are not run but recognised: by their text, whatever its spaces, quotes and case. What is
 * no idiom is refused with a sentence. */
#include "api/api_priv.h"

#include <openssl/sha.h>
#include <string.h>

#define SCRIPT_BYTES_MAX 1024

struct script {
        const char *text; /* as script_normal writes it */
        enum request_kind kind;
        uint32_t flags;
        enum api_form form;
        size_t args; /* after the key */
};

#define SCRIPT_OWNED                                                                               \
        "local token=redis.call(\"get\",keys[1])if not token or token~=argv[1]then return 0 end "

static const struct script scripts[] = {
        /* redis-py: release, extend, reacquire */
        {SCRIPT_OWNED "redis.call(\"del\",keys[1])return 1", REQUEST_LOCK_RELEASE, LOCK_BY_OWNER,
         API_FORM_ONE, 1},
        {SCRIPT_OWNED
         "local expiration=redis.call(\"pttl\",keys[1])if not expiration then expiration=0 end "
         "if expiration<0 then return 0 end local newttl=argv[2]if argv[3]==\"0\"then "
         "newttl=argv[2]+expiration end redis.call(\"pexpire\",keys[1],newttl)return 1",
         REQUEST_LOCK_RENEW, LOCK_BY_OWNER | LOCK_ADD_TTL, API_FORM_ONE, 3},
        {SCRIPT_OWNED "redis.call(\"pexpire\",keys[1],argv[2])return 1", REQUEST_LOCK_RENEW,
         LOCK_BY_OWNER, API_FORM_ONE, 2},
        /* The description of Redlock, and clients made after it: release, extend, acquire */
        {"if redis.call(\"get\",keys[1])==argv[1]then return redis.call(\"del\",keys[1])else "
         "return 0 end",
         REQUEST_LOCK_RELEASE, LOCK_BY_OWNER, API_FORM_ONE, 1},
        {"if redis.call(\"get\",keys[1])==argv[1]then return "
         "redis.call(\"pexpire\",keys[1],argv[2])else return 0 end",
         REQUEST_LOCK_RENEW, LOCK_BY_OWNER, API_FORM_ONE, 2},
        {"return redis.call(\"set\",keys[1],argv[1],\"nx\",\"px\",argv[2])", REQUEST_LOCK_ACQUIRE,
         LOCK_FRESH, API_FORM_SET, 2},
};

_Static_assert(COUNT_OF(scripts) <= API_SCRIPTS, "each has a place for its digest");

static struct bytes arg(const struct api_idiom *idiom, size_t index)
{
        return resp_arg(idiom->reader, idiom->input, index);
}

static bool number(const struct api_idiom *idiom, size_t index, const char *what, uint64_t *ret)
{
        if (resp_number(arg(idiom, index), UINT64_MAX >> 1, ret))
                return true;
        resp_write_error(idiom->out, "ERR %s is not a number in range: write it in digits", what);
        return false;
}

/* ---- SET and GET ---- */

static bool set_refuse(const struct api_idiom *idiom)
{
        resp_write_error(idiom->out, "ERR this port keeps locks, which end by themselves: SET key "
                                     "value NX PX milliseconds");
        return false;
}

bool api_redis_set(struct api_idiom *idiom)
{
        struct request *request = idiom->request;
        bool fresh = false;
        uint64_t scale = 0;
        for (size_t i = 3; i < idiom->reader->arg_count; i++) {
                bool px = resp_is(arg(idiom, i), "PX");
                if (resp_is(arg(idiom, i), "NX") && !fresh) {
                        fresh = true;
                } else if ((px || resp_is(arg(idiom, i), "EX")) && scale == 0 &&
                           i + 1 < idiom->reader->arg_count) {
                        scale = px ? 1 : 1000;
                        if (!number(idiom, ++i, "the time to live", &request->lock.ttl_ms))
                                return false;
                } else {
                        return set_refuse(idiom);
                }
        }
        if (!fresh || scale == 0)
                return set_refuse(idiom);
        bool long_time = request->lock.ttl_ms > LOCK_TTL_MS_MAX;
        request->lock.ttl_ms = long_time ? LOCK_TTL_MS_MAX + 1 : request->lock.ttl_ms * scale;
        request->kind = REQUEST_LOCK_ACQUIRE;
        request->lock.key = arg(idiom, 1);
        request->lock.owner = arg(idiom, 2);
        request->lock.flags = LOCK_FRESH;
        idiom->form = API_FORM_SET;
        return true;
}

bool api_redis_get(struct api_idiom *idiom)
{
        idiom->request->kind = REQUEST_LOCK_LOOK;
        idiom->request->lock.key = arg(idiom, 1);
        idiom->form = API_FORM_GET;
        return true;
}

/* ---- scripts ---- */

static bool is_word(char c)
{
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
}

static bool is_space(char c)
{
        return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == ';';
}

static char normal(uint8_t byte)
{
        if (byte >= 'A' && byte <= 'Z')
                return (char)(byte - 'A' + 'a');
        return byte == '\'' ? '"' : (char)byte;
}

/* Small letters, one kind of quotes, and spaces only between words. False where it is too long. */
static bool script_normal(struct bytes text, char out[SCRIPT_BYTES_MAX])
{
        size_t len = 0;
        bool space = false;
        for (size_t i = 0; i < text.len; i++) {
                char c = normal(text.ptr[i]);
                if (is_space(c)) {
                        space = true;
                        continue;
                }
                if (len + 3 > SCRIPT_BYTES_MAX)
                        return false;
                if (space && len > 0 && is_word(out[len - 1]) && is_word(c))
                        out[len++] = ' ';
                out[len++] = c;
                space = false;
        }
        out[len] = '\0';
        return true;
}

static const struct script *script_find(struct bytes text)
{
        char normal_text[SCRIPT_BYTES_MAX];
        if (!script_normal(text, normal_text))
                return NULL;
        for (size_t i = 0; i < COUNT_OF(scripts); i++)
                if (strcmp(scripts[i].text, normal_text) == 0)
                        return &scripts[i];
        return NULL;
}

static void digest_of(struct bytes text, char ret[API_DIGEST_SIZE])
{
        static const char digits[] = "0123456789abcdef";
        uint8_t digest[SHA_DIGEST_LENGTH];
        SHA1(text.ptr, text.len, digest);
        for (size_t i = 0; i < sizeof digest; i++) {
                ret[2 * i] = digits[digest[i] >> 4];
                ret[2 * i + 1] = digits[digest[i] & 15];
        }
        ret[API_DIGEST_SIZE - 1] = '\0';
}

/* Remembers by which digest a script is called; the last text of each counts. */
static const char *script_keep(struct api_scripts *known, const struct script *script,
                               struct bytes text)
{
        char *digest = known->digests[script - scripts];
        digest_of(text, digest);
        return digest;
}

static const struct script *script_known(const struct api_scripts *known, struct bytes digest)
{
        char wanted[API_DIGEST_SIZE] = {0};
        if (digest.len != API_DIGEST_SIZE - 1)
                return NULL;
        for (size_t i = 0; i < digest.len; i++)
                wanted[i] = normal(digest.ptr[i]);
        for (size_t i = 0; i < COUNT_OF(scripts); i++)
                if (strcmp(known->digests[i], wanted) == 0)
                        return &scripts[i];
        return NULL;
}

static void script_refuse(struct buffer *out)
{
        resp_write_error(out, "ERR this port runs no scripts but those by which redis-py and "
                              "Redlock clients release and extend a lock");
}

/* EVAL script 1 key arguments: `script` is known. */
static bool script_request(struct api_idiom *idiom, const struct script *script)
{
        struct request *request = idiom->request;
        if (!bytes_equal(arg(idiom, 2), BYTES("1")) ||
            idiom->reader->arg_count != 4 + script->args) {
                resp_write_error(idiom->out, "ERR this script wants one key and %zu arguments",
                                 script->args);
                return false;
        }
        request->kind = script->kind;
        request->lock.key = arg(idiom, 3);
        request->lock.owner = arg(idiom, 4);
        request->lock.flags = script->flags;
        idiom->form = script->form;
        if (script->args > 1 && !number(idiom, 5, "the time to live", &request->lock.ttl_ms))
                return false;
        if (script->args > 2 && !bytes_equal(arg(idiom, 6), BYTES("0")))
                request->lock.flags &= ~(uint32_t)LOCK_ADD_TTL;
        return true;
}

bool api_redis_eval(struct api_idiom *idiom)
{
        const struct script *script = script_find(arg(idiom, 1));
        if (script == NULL) {
                script_refuse(idiom->out);
                return false;
        }
        (void)script_keep(idiom->scripts, script, arg(idiom, 1));
        return script_request(idiom, script);
}

bool api_redis_evalsha(struct api_idiom *idiom)
{
        const struct script *script = script_known(idiom->scripts, arg(idiom, 1));
        if (script != NULL)
                return script_request(idiom, script);
        resp_write_error(idiom->out, "NOSCRIPT No matching script. Please use EVAL.");
        return false;
}

void api_redis_script(const struct api_idiom *idiom)
{
        struct buffer *out = idiom->out;
        size_t count = idiom->reader->arg_count;
        if (resp_is(arg(idiom, 1), "LOAD") && count == 3) {
                const struct script *script = script_find(arg(idiom, 2));
                if (script == NULL)
                        script_refuse(out);
                else
                        resp_write_bulk(out, bytes_of_str(script_keep(idiom->scripts, script,
                                                                      arg(idiom, 2))));
        } else if (resp_is(arg(idiom, 1), "EXISTS") && count > 2) {
                resp_write_array(out, count - 2);
                for (size_t i = 2; i < count; i++)
                        resp_write_integer(out,
                                           script_known(idiom->scripts, arg(idiom, i)) != NULL);
        } else if (resp_is(arg(idiom, 1), "FLUSH")) {
                memset(idiom->scripts, 0, sizeof *idiom->scripts);
                resp_write_simple(out, "OK");
        } else {
                resp_write_error(out, "ERR unknown or wrong SCRIPT sub-command");
        }
}

/* ---- answers ---- */

bool api_redis_write(struct buffer *out, int protocol, enum api_form form,
                     const struct reply *reply)
{
        enum reply_code code = reply->code;
        bool not_owner = code == REPLY_NOT_OWNER || code == REPLY_NOT_FOUND;
        switch (form) {
        case API_FORM_SET:
                if (code == REPLY_OK)
                        resp_write_simple(out, "OK");
                else if (code == REPLY_HELD)
                        resp_write_null(out, protocol);
                return code == REPLY_OK || code == REPLY_HELD;
        case API_FORM_GET:
                if (code == REPLY_OK)
                        resp_write_bulk(out, reply->lock.owner);
                else if (code == REPLY_NOT_FOUND)
                        resp_write_null(out, protocol);
                return code == REPLY_OK || code == REPLY_NOT_FOUND;
        case API_FORM_ONE:
                if (code == REPLY_OK || not_owner)
                        resp_write_integer(out, code == REPLY_OK);
                return code == REPLY_OK || not_owner;
        case API_FORM_LOCK:
        case API_FORM_KV_GET:
        case API_FORM_KV_REVISION:
        case API_FORM_KV_TOTAL:
        case API_FORM_KV_RANGE:
        case API_FORM_KV_HISTORY:
        case API_FORM_KV_CHANGES:
        case API_FORM_KV_TXN:
        case API_FORM_COUNT:
                break;
        }
        return false;
}
