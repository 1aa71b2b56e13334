/* wait: how a binding parks the running task until the loop has an answer.
 *
 * Provides  wait_begin, wait_park, wait_wake and wait_post for the other bindings; lists of waits
 * Uses      core/timers, libuv, luv's loop
 * Owns      every coroutine that is a task (bindings/task.h), and the one timer of all deadlines
 *
 * A task is parked in one operation at a time, so its one `struct wait` lies inside of it:
 *
 *     struct wait *wait = wait_begin(L);                     throws where waiting is not possible
 *     x_on_readable(x, readable, wait);                      its callback ends in wait_wake
 *     return wait_park(L, wait, timeout_s, detach, x, k, c); yields; k(L, status, c) goes on
 *
 * Whatever ends the wait (answer, deadline, cancellation) ends it once. Unless it was wait_wake or
 * wait_post, detach(arg) is called first, and after it the operation must not call back. This unit
 * is the only place that yields or resumes a coroutine. */
#ifndef BINDINGS_WAIT_H
#define BINDINGS_WAIT_H

#include "core/timers.h"

#include <lauxlib.h>
#include <lua.h>
#include <uv.h>

typedef void (*wait_detach)(void *arg);

/* A ring of waits, in the order of their coming; the list itself is the link without a wait. */
struct wait_link {
    struct wait_link *next, *previous;
};

struct wait {
    struct wait_link link; /* for the list that the operation keeps its waits in, if any */
    struct deadline deadline;
    wait_detach detach;
    void *arg;
    lua_KFunction k;
    lua_KContext ctx;
    int status;
};

/* The running task's wait. Throws "not in a task" elsewhere, says so where C code (require,
 * table.sort, string.gsub, __tostring) stands between, and raises the cancellation of a task that
 * was cancelled, unless a __close handler of it asks. */
struct wait *wait_begin(lua_State *L);

/* Parks the task. A negative timeout_s is none; zero still goes once around the loop. k gets the
 * stack as it was and 0, the status given to wait_wake, or UV_ETIMEDOUT; a cancellation is raised
 * instead of calling it. Use as `return wait_park(…)`. */
int wait_park(lua_State *L, struct wait *wait, double timeout_s, wait_detach detach, void *arg,
              lua_KFunction k, lua_KContext ctx);

/* Ends the wait from a callback of the loop: the task runs now (or after the one that runs). */
void wait_wake(struct wait *wait, int status);

/* Ends the wait from a function that Lua called: the task runs when its turn comes. */
void wait_post(struct wait *wait, int status);

/* Pushes a deadline in place of a timeout, for a wait that may have to be begun anew, and gives the
 * seconds that are left until the one at `index`. Negative is none, in all three. */
void push_deadline(lua_State *L, double timeout_s);
double time_left(lua_State *L, int index);

uv_loop_t *wait_loop(lua_State *L);

/* Ends all tasks, which cannot wait for anything then: the Lua state is being closed. */
void wait_end(lua_State *L);

/* The main thread, for callbacks that must call Lua outside of a task. */
lua_State *wait_main(lua_State *L);

void wait_list_init(struct wait_link *list);
void wait_list_add(struct wait_link *list, struct wait *wait);
struct wait *wait_list_first(const struct wait_link *list); /* NULL when it is empty */

/* Takes the wait (void, so that it serves as wait_detach) out of its list, if it is in one. */
void wait_list_remove(void *wait);

#endif
