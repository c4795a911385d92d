/* What CLUSTER NODES tells, a line for each node:
 *
 *      id ip:port@bus[,hostname] flags primary ping pong epoch link slot ...
 *
 * Only primaries are taken. A slot is `5`, `5-9`, or `[5-<-id]`, `[5->-id]` for one that moves,
 * which the owner's own entry has as well. A line of another form is left out: a newer server may
 * say more than we know. */
#include "base/digits.h"
#include "engine/cluster_priv.h"

#include <stdio.h>

static struct bytes word_next(struct bytes *line)
{
        size_t len = 0;
        while (len < line->len && line->ptr[len] != ' ')
                len++;
        struct bytes word = bytes_of(line->ptr, len);
        size_t skip = len < line->len ? len + 1 : len;
        *line = bytes_of(line->ptr + skip, line->len - skip);
        return word;
}

static bool has_flag(struct bytes flags, const char *name)
{
        struct bytes wanted = bytes_of_str(name);
        while (flags.len > 0) {
                size_t len = 0;
                while (len < flags.len && flags.ptr[len] != ',')
                        len++;
                if (bytes_equal(bytes_of(flags.ptr, len), wanted))
                        return true;
                size_t skip = len < flags.len ? len + 1 : len;
                flags = bytes_of(flags.ptr + skip, flags.len - skip);
        }
        return false;
}

/* `ip:port@bus,...`; a node that knows no address of its own leaves the ip out. */
static bool address_read(struct bytes word, const struct topology_endpoint *asked,
                         struct topology_endpoint *ret)
{
        char text[TOPOLOGY_ENDPOINT_TEXT];
        size_t end = 0, colon = 0;
        while (end < word.len && word.ptr[end] != '@' && word.ptr[end] != ',')
                end++;
        for (size_t i = 0; i < end; i++) {
                if (word.ptr[i] == ':')
                        colon = i;
        }
        if (end == 0 || word.ptr[colon] != ':' || end > sizeof text / 2)
                return false;
        struct bytes host = bytes_of(word.ptr, colon);
        struct bytes port = bytes_of(word.ptr + colon, end - colon);
        bool six = host.len > 0 && memchr(host.ptr, ':', host.len) != NULL;
        if (host.len == 0) {
                char name[TOPOLOGY_ADDRESS_TEXT];
                (void)topology_address_text(&asked->address, name);
                six = strchr(name, ':') != NULL;
                (void)snprintf(text, sizeof text, six ? "[%s]%.*s" : "%s%.*s", name,
                               BYTES_ARGS(port));
        } else {
                (void)snprintf(text, sizeof text, six ? "[%.*s]%.*s" : "%.*s%.*s", BYTES_ARGS(host),
                               BYTES_ARGS(port));
        }
        return topology_endpoint_parse(bytes_of_str(text), ret);
}

static bool number_read(struct bytes *word, unsigned *ret)
{
        unsigned value = 0;
        size_t len = 0;
        while (len < word->len && word->ptr[len] >= '0' && word->ptr[len] <= '9' && len < 5) {
                value = value * 10 + (unsigned)(word->ptr[len] - '0');
                len++;
        }
        *word = bytes_of(word->ptr + len, word->len - len);
        *ret = value;
        return len > 0 && value < SHARDS_SLOTS;
}

static void slots_read(struct bytes words, struct nodes *nodes, unsigned owner)
{
        while (words.len > 0) {
                unsigned low, high;
                struct bytes word = word_next(&words);
                if (!number_read(&word, &low))
                        continue;
                high = low;
                if (word.len > 0 && word.ptr[0] == '-') {
                        word = bytes_of(word.ptr + 1, word.len - 1);
                        if (!number_read(&word, &high))
                                continue;
                }
                if (word.len > 0)
                        continue;
                for (unsigned slot = low; slot <= high; slot++) {
                        nodes->map.owner[slot] = (uint8_t)owner;
                        nodes->items[owner].slots++;
                }
        }
}

static bool line_read(struct bytes line, const struct topology_endpoint *asked, struct nodes *ret)
{
        struct bytes id = word_next(&line);
        struct bytes address = word_next(&line);
        struct bytes flags = word_next(&line);
        for (unsigned i = 0; i < 3; i++) /* primary, ping, pong */
                word_next(&line);
        uint64_t epoch = 0; /* where it is none */
        (void)digits_parse(word_next(&line), UINT64_MAX, &epoch);
        word_next(&line); /* link */
        if (!has_flag(flags, "master") || has_flag(flags, "handshake") ||
            has_flag(flags, "noaddr") || (has_flag(flags, "fail") && line.len == 0))
                return true;
        struct node_told node = {.failed = has_flag(flags, "fail"),
                                 .myself = has_flag(flags, "myself"),
                                 .epoch = epoch};
        if (id.len == 0 || id.len >= sizeof node.id ||
            !address_read(address, asked, &node.endpoint))
                return true;
        memcpy(node.id, id.ptr, id.len);
        if (ret->map.count == SHARDS_MAX)
                return false;
        ret->items[ret->map.count] = node;
        slots_read(line, ret, ret->map.count);
        /* Without slots it may become a replica, and its epoch goes. */
        if (ret->items[ret->map.count].slots > 0 && epoch > ret->epoch_max)
                ret->epoch_max = epoch;
        ret->map.count++;
        return true;
}

bool nodes_parse(struct bytes text, const struct topology_endpoint *asked, struct nodes *ret)
{
        memset(ret, 0, sizeof *ret);
        memset(ret->map.owner, SHARDS_NOBODY, sizeof ret->map.owner);
        while (text.len > 0) {
                size_t len = 0;
                while (len < text.len && text.ptr[len] != '\n')
                        len++;
                if (!line_read(bytes_of(text.ptr, len), asked, ret))
                        return false;
                size_t skip = len < text.len ? len + 1 : len;
                text = bytes_of(text.ptr + skip, text.len - skip);
        }
        for (unsigned slot = 0; slot < SHARDS_SLOTS; slot++)
                ret->uncovered += ret->map.owner[slot] == SHARDS_NOBODY;
        return ret->map.count > 0;
}
