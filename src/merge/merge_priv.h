/* merge_priv.h - what the files of merge/ share. */
#ifndef MERIDIAN_MERGE_MERGE_PRIV_H
#define MERIDIAN_MERGE_MERGE_PRIV_H

#include "merge/merge.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>

/* Pushes the table `json`. */
void json_open(lua_State *lua);

/* Pushes a list of the keys of the table at `index`, numbers first, each kind in rising order.
 * Other kinds of keys are an error. */
void keys_sorted(lua_State *lua, int index);

/* What stdout, stdin and stderr are to the Lua library (meson.build): nothing. */
extern FILE *merge_stderr;
extern FILE *merge_stdin;
extern FILE *merge_stdout;

/* Work in C counts like instructions: raises the error when there were too many. */
void run_charge(lua_State *lua, size_t steps);

/* library.c: makes the globals. */
void library_open(lua_State *lua);

#endif
