/* Instances of services: text to address, port, region, weight. */
#include "base/digits.h"
#include "board/board.h"

#include <arpa/inet.h>

enum {
        WEIGHT_DEFAULT = 100,
};

bool board_label_valid(struct bytes label)
{
        if (label.len == 0 || label.len > BOARD_LABEL_MAX || label.ptr[0] == '-' ||
            label.ptr[label.len - 1] == '-')
                return false;
        for (size_t i = 0; i < label.len; i++) {
                uint8_t byte = label.ptr[i];
                if (!((byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') || byte == '-'))
                        return false;
        }
        return true;
}

static struct bytes word_next(struct bytes *text)
{
        while (text->len > 0 && text->ptr[0] == ' ')
                *text = bytes_of(text->ptr + 1, text->len - 1);
        size_t len = 0;
        while (len < text->len && text->ptr[len] != ' ')
                len++;
        struct bytes word = bytes_of(text->ptr, len);
        *text = bytes_of(text->ptr + len, text->len - len);
        return word;
}

static bool number_read(struct bytes word, uint16_t *ret)
{
        uint64_t value;
        if (!digits_parse(word, UINT16_MAX, &value))
                return false;
        *ret = (uint16_t)value;
        return true;
}

static size_t colon_last(struct bytes word)
{
        size_t at = word.len;
        while (at > 0 && word.ptr[at - 1] != ':')
                at--;
        return at; /* behind it; 0: there is none */
}

static bool address_read(struct bytes word, struct board_service *ret)
{
        char text[64];
        size_t colon = colon_last(word);
        if (colon < 2 || !number_read(bytes_of(word.ptr + colon, word.len - colon), &ret->port))
                return false;
        struct bytes host = bytes_of(word.ptr, colon - 1);
        bool brackets = host.len > 2 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']';
        if (brackets)
                host = bytes_of(host.ptr + 1, host.len - 2);
        if (host.len >= sizeof text)
                return false;
        memcpy(text, host.ptr, host.len);
        text[host.len] = '\0';
        ret->family = brackets ? 6 : 4;
        return ret->port > 0 && strlen(text) == host.len &&
               inet_pton(brackets ? AF_INET6 : AF_INET, text, ret->address) == 1;
}

static bool options_read(struct bytes text, struct board_service *ret)
{
        for (;;) {
                struct bytes word = word_next(&text);
                if (word.len == 0)
                        return true;
                struct bytes value = word_next(&text);
                if (bytes_equal(word, BYTES("region")) && board_label_valid(value))
                        ret->region = value;
                else if (!bytes_equal(word, BYTES("weight")) || !number_read(value, &ret->weight))
                        return false;
        }
}

enum err board_service_parse(struct bytes key, struct bytes text, struct board_service *ret)
{
        struct board_service service = {.weight = WEIGHT_DEFAULT};
        size_t slash = 0;
        while (slash < key.len && key.ptr[slash] != '/')
                slash++;
        service.name = bytes_of(key.ptr, slash);
        if (slash == key.len)
                return ERR_MALFORMED;
        service.id = bytes_of(key.ptr + slash + 1, key.len - slash - 1);
        if (!board_label_valid(service.name) || !board_label_valid(service.id))
                return ERR_MALFORMED;
        struct bytes address = word_next(&text);
        if (!address_read(address, &service) || !options_read(text, &service))
                return ERR_MALFORMED;
        *ret = service;
        return ERR_NONE;
}
