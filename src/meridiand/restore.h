/* restore.h - what a daemon does at its start with a backup that `meridian restore` put into its
 * data folder, and the number of the cluster's life. */
#ifndef MERIDIAN_MERIDIAND_RESTORE_H
#define MERIDIAN_MERIDIAND_RESTORE_H

#include "base/heap.h"
#include "node/node.h"

/* The life of the cluster: that of the file `restore` in `dir`, else that of `life`, else 0. False:
 * said in the log. */
MUST_USE bool restore_life(struct heap *heap, const char *dir, uint64_t *ret_life);

/* Where `restore` is there: writes the journals, the life, and a number of starts beyond any
 * before; then the file goes. A daemon that dies in between does all of it again. False: said in
 * the log. */
MUST_USE bool restore_begin(struct heap *heap, const char *dir, struct node *node,
                            uint64_t *incarnation);

#endif
