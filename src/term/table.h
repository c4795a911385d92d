/* table.h - a table for people: as wide as what is in it, and no wider. */
#ifndef MERIDIAN_TERM_TABLE_H
#define MERIDIAN_TERM_TABLE_H

#include "term/term.h"

#define TERM_TABLE_COLUMNS_MAX 72
#define TERM_TABLE_CELL_SIZE   120 /* longer texts are cut */

struct term_table_cell {
        char text[TERM_TABLE_CELL_SIZE];
        enum term_style style;
};

struct term_table {
        size_t columns;
        struct term_table_cell *cells; /* row after row */
        size_t count;
        size_t room;
};

/* Begins an empty table of 1 to TERM_TABLE_COLUMNS_MAX columns. */
void term_table_init(struct term_table *table, size_t columns);

/* The next cell, from the left, row after row. Without memory it is left out. */
void term_table_cell(struct term_table *table, enum term_style style, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

/* Prints all rows, two columns from the left and two apart, and ends the table. */
void term_table_print(struct term_table *table);

#endif
