/* Numbers as text. Nothing fails but by "this is not a number". 15 digits are what a double keeps
 * for sure, so sums of short decimals print as one expects (0.1 + 0.2 is 0.3). */
#include "crdt/number.h"

#include <stdio.h>
#include <stdlib.h>

enum {
        NUMBER_LEN_MAX = 400, /* the longest finite double without exponent has 309 + 18 */
        NUMBER_DIGITS = 15,
        NUMBER_DECIMALS_MAX = 17,
};

bool number_int(struct bytes text, int64_t *ret)
{
        bool negative = text.len > 0 && text.ptr[0] == '-';
        size_t at = negative;
        if (text.len == at || text.len > 20 || text.ptr[at] < '0' || text.ptr[at] > '9')
                return false;
        if (text.ptr[at] == '0' && (negative || text.len > 1))
                return false;
        uint64_t value = 0;
        for (; at < text.len; at++) {
                if (text.ptr[at] < '0' || text.ptr[at] > '9')
                        return false;
                if (__builtin_mul_overflow(value, 10, &value) ||
                    __builtin_add_overflow(value, (uint64_t)(text.ptr[at] - '0'), &value))
                        return false;
        }
        if (value > (uint64_t)INT64_MAX + negative)
                return false;
        *ret = (int64_t)(negative ? 0 - value : value);
        return true;
}

static bool number_letters(struct bytes text)
{
        for (size_t i = 0; i < text.len; i++) {
                uint8_t c = text.ptr[i];
                if ((c < '0' || c > '9') && c != '+' && c != '-' && c != '.' && c != 'e' &&
                    c != 'E')
                        return false;
        }
        return true;
}

bool number_float(struct bytes text, double *ret)
{
        char copy[NUMBER_LEN_MAX + 1];
        if (text.len == 0 || text.len > NUMBER_LEN_MAX || !number_letters(text))
                return false;
        memcpy(copy, text.ptr, text.len);
        copy[text.len] = '\0';
        char *end = NULL;
        double value = strtod(copy, &end);
        if (end != copy + text.len || !__builtin_isfinite(value))
                return false;
        *ret = value;
        return true;
}

static int number_exponent(double value)
{
        char text[32];
        snprintf(text, sizeof text, "%.*e", NUMBER_DIGITS - 1, value);
        const char *e = strchr(text, 'e');
        return e == NULL ? 0 : (int)strtol(e + 1, NULL, 10);
}

void number_format(struct buffer *buffer, double value)
{
        char text[NUMBER_LEN_MAX + 1];
        int decimals = NUMBER_DIGITS - 1 - number_exponent(value);
        decimals = decimals < 0 ? 0 : decimals;
        decimals = decimals > NUMBER_DECIMALS_MAX ? NUMBER_DECIMALS_MAX : decimals;
        int len = snprintf(text, sizeof text, "%.*f", decimals, value);
        if (decimals > 0) {
                while (text[len - 1] == '0')
                        len--;
                if (text[len - 1] == '.')
                        len--;
        }
        if (len == 2 && text[0] == '-' && text[1] == '0')
                buffer_bytes(buffer, BYTES("0"));
        else
                buffer_bytes(buffer, bytes_of(text, (size_t)len));
}
