/* interrupt: SIGINT and SIGTERM, in a waiting program and in a busy one.
 *
 * Provides  the handlers of the program, and core.interrupt for the REPL
 * Uses      bindings/task */
#ifndef BINDINGS_INTERRUPT_H
#define BINDINGS_INTERRUPT_H

#include <lua.h>

/* Catches both signals. The first cancels all tasks (or calls what core.interrupt set), breaking
 * into a loop that never waits; another one before that has ended leaves at once. */
int interrupt_install(lua_State *L);

/* The signal that came, or 0. */
int interrupt_signal(void);

/* core.interrupt(function or nil, task or nil): the function gets "SIGINT" instead of the tasks'
 * cancellation, and only the task is broken into while it runs (any, when it comes again at once). */
int open_interrupt(lua_State *L);

#endif
