/* task: what a task is, and the runtime that they share.
 *
 * Provides  struct task and struct runtime to wait.c, task.c, interrupt.c and main.c
 * Uses      bindings/wait */
#ifndef BINDINGS_TASK_H
#define BINDINGS_TASK_H

#include "bindings/wait.h"

#include <stdbool.h>

#define TASK_TYPE "p2pd.task"

enum task_state { TASK_READY, TASK_RUNNING, TASK_PARKED, TASK_DONE, TASK_FAILED, TASK_CANCELLED };

struct task { /* a full userdata; in the registry, by its address, until it ends */
    struct wait wait;
    struct deadline grace; /* what a cancelled task has for its <close> variables */
    struct runtime *runtime;
    lua_State *thread;                   /* holds the results, or the error, after the end */
    struct task *next_live, **live_link; /* all tasks that have not ended */
    struct task *next_ready;             /* those whose turn is to come */
    struct wait_link waiters;            /* tasks that wait for this one's end */
    enum task_state state;
    unsigned id;
    bool started, cancelled;
    bool raise;     /* the cancellation is to be raised where the task is parked */
    bool unwinding; /* it was raised, and no pcall has caught it yet: only __close handlers run */
    bool runaway;   /* it was interrupted while it ran: raised again whenever it was caught */
    unsigned nested_calls; /* of pcall within those handlers */
    bool observed;         /* somebody learns of a failure, so that it need not be printed */
};

struct runtime {
    lua_State *main;
    uv_loop_t *loop;
    uv_timer_t timer; /* for the earliest deadline */
    uv_idle_t idle;   /* active while tasks are ready or due, so that the loop does not sleep */
    struct timers timers;
    struct task *live;
    struct task *ready, **ready_end;
    struct task *volatile current; /* volatile: a signal's handler looks at it */
    struct task *target;           /* the one that runtime_run waits for */
    void (*on_failure)(struct runtime *runtime, struct task *task); /* nobody waits for the task */
    uint64_t virtual_now_ns; /* the time, when it is virtual; else 0 */
    double grace_s;
    lua_CFunction pcall, xpcall; /* Lua's own, by which a cancellation can be caught */
    lua_CFunction error, assert; /* and raised again */
    unsigned next_id, live_count, failures;
    bool due;     /* the earliest deadline has passed */
    bool leaving; /* all tasks were cancelled, and new ones are so from the start */
    bool ended;   /* the Lua state is being closed */
};

/* Makes the runtime of this Lua state on the loop. */
void runtime_open(lua_State *L, uv_loop_t *loop);
struct runtime *runtime_of(lua_State *L);

/* The clock of all deadlines: monotonic, or virtual. */
uint64_t runtime_now_ns(struct runtime *runtime);

/* Runs the loop until the task has ended. Returns 0, or ERR_EDEADLOCK when all tasks are parked and
 * the loop has nothing pending. */
int runtime_run(struct runtime *runtime, struct task *task);

/* Makes a task of the function and its `arguments` on top of the stack; leaves the task there. */
struct task *task_spawn(lua_State *L, int arguments);

/* Raises the cancellation where the task is parked, or at its next wait. */
void task_cancel(struct task *task);

/* Cancels every task, and those to come: the program leaves. */
void task_cancel_all(struct runtime *runtime);

/* Runs the loop until no task is left and (unless the program leaves) nothing else is pending.
 * Returns 0, or ERR_EDEADLOCK when tasks are left that nothing can wake. */
int runtime_drain(struct runtime *runtime);

static inline bool task_ended(const struct task *task) {
    return task->state >= TASK_DONE;
}

/* Pushes what the task at `index`, which has ended, returned (nil, message, code when it was
 * cancelled) and returns the count; raises its error when it failed. */
int task_results(lua_State *L, int index);

/* Pushes the text of the error and the traceback of the failed task at `index`. */
void task_push_traceback(lua_State *L, int index);

/* Pushes the userdata of a task that has not ended (nil of one that has). */
void task_push(lua_State *L, struct task *task);

/* A hook (lua_sethook) that cancels the running task and raises the cancellation on the spot, again
 * and again while the task swallows it. */
void task_break_in(lua_State *L, lua_Debug *frame);

/* The error that a cancelled task gets. */
void task_push_cancelled(lua_State *L);
bool task_is_cancelled(lua_State *L, int index);

#endif
