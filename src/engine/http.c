/* The status line of a response (RFC 9112, 4), no more. Pure; any bytes may come. */
#include "engine/engine_priv.h"

int http_status(struct bytes begin)
{
        static const char pattern[] = "HTTP/1.d ddd";
        size_t len = sizeof pattern - 1;
        for (size_t i = 0; i < len && i < begin.len; i++) {
                uint8_t byte = begin.ptr[i];
                bool good = pattern[i] == 'd' ? byte >= '0' && byte <= '9'
                                              : byte == (uint8_t)pattern[i];
                if (!good)
                        return -1;
        }
        if (begin.len < len)
                return 0;
        int status = (begin.ptr[9] - '0') * 100 + (begin.ptr[10] - '0') * 10 + begin.ptr[11] - '0';
        return status >= 100 && status <= 599 ? status : -1;
}
