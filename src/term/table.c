/* table.c - keeps the cells until all are there, since only then it is known how wide they are. */
#include "term/table.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define TABLE_CELLS_MAX ((size_t)1 << 16)

void term_table_init(struct term_table *table, size_t columns)
{
        *table = (struct term_table){.columns = columns};
}

void term_table_cell(struct term_table *table, enum term_style style, const char *format, ...)
{
        if (table->count == table->room) {
                size_t room = table->room == 0 ? 64 : table->room * 2;
                struct term_table_cell *cells =
                        room > TABLE_CELLS_MAX ? NULL : realloc(table->cells, room * sizeof *cells);
                if (cells == NULL)
                        return;
                table->cells = cells;
                table->room = room;
        }
        struct term_table_cell *cell = &table->cells[table->count++];
        cell->style = style;
        va_list args;
        va_start(args, format);
        vsnprintf(cell->text, sizeof cell->text, format, args);
        va_end(args);
}

void term_table_print(struct term_table *table)
{
        size_t widths[TERM_TABLE_COLUMNS_MAX] = {0};
        for (size_t i = 0; i < table->count; i++) {
                size_t width = term_width(table->cells[i].text);
                size_t *widest = &widths[i % table->columns];
                *widest = width > *widest ? width : *widest;
        }
        size_t gap = 0; /* before the next text: nothing stands behind the last */
        for (size_t i = 0; i < table->count; i++) {
                size_t column = i % table->columns;
                const char *text = table->cells[i].text;
                gap = column == 0 ? 2 : gap;
                if (text[0] != '\0') {
                        printf("%*s", (int)gap, "");
                        term_cell(table->cells[i].style, text, 0);
                        gap = 0;
                }
                gap += widths[column] + 2 - term_width(text);
                if (column + 1 == table->columns || i + 1 == table->count)
                        putchar('\n');
        }
        free(table->cells);
        *table = (struct term_table){0};
}
