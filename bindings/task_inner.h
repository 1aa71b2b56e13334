/* task_inner: what the files behind wait.h and task.h share; for them alone.
 *
 *   wait.c         parking, waking, whose turn it is, time
 *   task_cancel.c  raising a cancellation, and closing by force when its grace is over
 *   task_life.c    from task_spawn to the results; the runtime's opening, loop and end
 *
 * Provides  what one of them needs of another, and bindings/wait.h and bindings/task.h leave out
 * Uses      bindings/task
 * Owns      nothing of its own */
#ifndef BINDINGS_TASK_INNER_H
#define BINDINGS_TASK_INNER_H

#include "bindings/task.h"

/* --- wait.c -------------------------------------------------------------------------------- */

void deadline_set(struct runtime *runtime, struct deadline *deadline, double seconds);

/* Nothing happens when it is not set. */
void deadline_unset(struct runtime *runtime, struct deadline *deadline);

/* Puts the task at the end of those whose turn is to come. */
void task_make_ready(struct task *task);

/* Runs the ready tasks, unless one runs already. */
void runtime_run_ready(struct runtime *runtime);

/* Ends the wait of a parked task on our own account: what it waits for is detached. */
void task_end_wait_early(struct task *task, int status);

/* What a task's wait.deadline calls. */
void task_wait_deadline_passed(struct deadline *deadline);

/* --- task_cancel.c ------------------------------------------------------------------------- */

/* Makes the error of the cancelled, and finds the functions by which it is caught and raised. */
void runtime_open_cancellation(lua_State *L, struct runtime *runtime);

/* Raises it in the running task: never returns. */
int task_raise_cancellation(lua_State *L, struct task *task);

bool task_in_close_handler(lua_State *L);
void task_close_by_force(struct task *task);

/* What a task's grace calls. */
void task_grace_passed(struct deadline *deadline);

/* --- task_life.c --------------------------------------------------------------------------- */

/* The task has ended so: tells whoever waits for it, and lets go of it. */
void task_finish(struct task *task, enum task_state state);

#endif
