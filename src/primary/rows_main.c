/* meridian-primary-rows - prints docs/primary-rows.md. Fails only when it cannot write. */
#include "primary/primary.h"

#include <stdio.h>

int main(void)
{
        struct heap heap;
        struct buffer buffer;
        heap_init(&heap, 0);
        buffer_init(&buffer, &heap);
        primary_markdown(&buffer);
        struct bytes text = buffer_view(&buffer);
        bool good = buffer.err == ERR_NONE && fwrite(text.ptr, 1, text.len, stdout) == text.len &&
                    fflush(stdout) == 0;
        buffer_fini(&buffer);
        return good ? 0 : 1;
}
