/* digits.c - a number is digits and nothing else; one beyond the limit is refused before it is
 * computed. */
#include "base/digits.h"

bool digits_parse(struct bytes text, uint64_t max, uint64_t *ret)
{
        uint64_t value = 0;
        if (text.len == 0)
                return false;
        for (size_t i = 0; i < text.len; i++) {
                uint64_t digit = (uint64_t)text.ptr[i] - '0';
                if (digit > 9 || digit > max || value > (max - digit) / 10)
                        return false;
                value = value * 10 + digit;
        }
        *ret = value;
        return true;
}
