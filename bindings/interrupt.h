/* interrupt: SIGINT and SIGTERM, in a waiting program and in a busy one.
 *
 * Provides  the handlers of the program, and core.interrupt for the REPL
 * Uses      bindings/task, bindings/terminal (to give it back when we leave at once) */
#ifndef BINDINGS_INTERRUPT_H
#define BINDINGS_INTERRUPT_H

#include <lua.h>

/* Catches both signals. The first cancels all tasks, breaking into a loop that never waits; another
 * one before that has ended leaves at once. */
int interrupt_install(lua_State *L);

/* The signal that came, or 0. */
int interrupt_signal(void);

/* core.interrupt.handle(function or nil, task or nil): SIGINT calls function(broke_in) instead of
 * cancelling all tasks, and breaks into that task alone while it runs (into any, when it comes
 * again before the loop could call the function); broke_in tells that this was done already.
 * core.interrupt.leave(): cancels all tasks; the program ends when they have, and waits for nothing
 * else. */
int open_interrupt(lua_State *L);

#endif
