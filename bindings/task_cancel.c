#include "bindings/task_inner.h"
#include "core/loop.h"

#include <lualib.h>
#include <string.h>

static const char cancelled_key;

void task_push_cancelled(lua_State *L) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &cancelled_key);
}

bool task_is_cancelled(lua_State *L, int index) {
    index = lua_absindex(L, index);
    task_push_cancelled(L);
    bool equal = lua_rawequal(L, index, -1);
    lua_pop(L, 1);
    return equal;
}

static lua_CFunction function_of(lua_State *L, lua_Debug *frame) {
    lua_getinfo(L, "f", frame);
    lua_CFunction function = lua_tocfunction(L, -1);
    lua_pop(L, 1);
    return function;
}

static bool is_protected_call(lua_State *L, lua_Debug *frame) {
    struct runtime *runtime = runtime_of(L);
    lua_CFunction function = function_of(L, frame);
    return function && (function == runtime->pcall || function == runtime->xpcall);
}

/* Whether the frame is error(cancelled) or assert(false, cancelled): what a pcall caught goes on.
 */
static bool raises_again(lua_State *L, lua_Debug *frame) {
    struct runtime *runtime = runtime_of(L);
    lua_CFunction function = function_of(L, frame);
    if (!function || (function != runtime->error && function != runtime->assert))
        return false;
    if (!lua_getlocal(L, frame, function == runtime->error ? 1 : 2))
        return false;
    bool again = task_is_cancelled(L, -1);
    lua_pop(L, 1);
    return again;
}

/* Watches a task that was told of its cancellation: until a pcall of its own has caught that, what
 * runs are its __close handlers, and they may wait. */
static void watch(lua_State *L, lua_Debug *frame) {
    struct task *task = runtime_of(L)->current;
    if (!task ||
        task->thread != L) { /* a coroutine has the hook of who made it, and may outlive it */
        lua_sethook(L, NULL, 0, 0);
        return;
    }
    if (frame->event == LUA_HOOKCOUNT) {
        if (!task->unwinding)
            task_raise_cancellation(L, task);
    } else if (!task->unwinding) {
        if (frame->event != LUA_HOOKRET && raises_again(L, frame)) {
            task->unwinding = true;
            task->nested_calls = 0;
        }
    } else if (is_protected_call(L, frame)) {
        if (frame->event != LUA_HOOKRET) {
            task->nested_calls++;
        } else if (task->nested_calls) {
            task->nested_calls--;
        } else {
            task->unwinding = false;
            if (task->runaway)
                lua_sethook(L, watch, LUA_MASKCOUNT, 1);
        }
    }
}

int task_raise_cancellation(lua_State *L, struct task *task) {
    task->unwinding = true;
    task->nested_calls = 0;
    lua_sethook(L, watch, LUA_MASKCALL | LUA_MASKRET | (task->runaway ? LUA_MASKCOUNT : 0), 1);
    task_push_cancelled(L);
    return lua_error(L);
}

void task_break_in(lua_State *L, lua_Debug *frame) {
    (void)frame;
    struct task *task = runtime_of(L)->current;
    lua_sethook(L, NULL, 0, 0);
    if (!task || task->thread != L)
        return;
    task_cancel(task);
    task->runaway = true;
    task_raise_cancellation(L, task);
}

/* Whether a scope of a cancelled task is being left as usual: its __close handlers may wait too. */
bool task_in_close_handler(lua_State *L) {
    lua_Debug frame;
    for (int level = 0; lua_getstack(L, level, &frame); level++) {
        lua_getinfo(L, "n", &frame);
        if (strcmp(frame.namewhat, "metamethod") == 0 && strcmp(frame.name, "close") == 0)
            return true;
    }
    return false;
}

/* The grace is over: whatever the task waits for is let go, and what it left open is closed without
 * being able to wait. */
void task_close_by_force(struct task *task) {
    struct runtime *runtime = task->runtime;
    if (task->state == TASK_PARKED)
        task_end_wait_early(task, UV_ECANCELED);
    struct task *before = runtime->current;
    task->state = TASK_RUNNING;
    runtime->current = task;
    lua_resetthread(task->thread);
    runtime->current = before;
    lua_settop(task->thread, 0);
    task_finish(task, TASK_CANCELLED);
}

void task_cancel(struct task *task) {
    struct runtime *runtime = task->runtime;
    if (task->cancelled || task_ended(task))
        return;
    task->cancelled = true;
    deadline_set(runtime, &task->grace, runtime->grace_s);
    if (task->state == TASK_PARKED) {
        task_end_wait_early(task, UV_ECANCELED);
        task->raise = true;
        task_make_ready(task);
    }
}

void task_cancel_all(struct runtime *runtime) {
    runtime->leaving = true;
    for (struct task *task = runtime->live; task; task = task->next_live)
        task_cancel(task);
}

void task_grace_passed(struct deadline *deadline) {
    struct task *task = container_of(deadline, struct task, grace);
    if (task->state == TASK_PARKED)
        task_close_by_force(task);
    else /* it is about to run and may park once more */
        deadline_set(task->runtime, &task->grace, task->runtime->grace_s);
}

static int cancelled_text(lua_State *L) {
    lua_pushliteral(L, "ECANCELED: the task was cancelled");
    return 1;
}

/* Lua's own pcall and so on, from a state of their own: here others may stand in their place. */
static void find_known(struct runtime *runtime) {
    const struct {
        const char *name;
        lua_CFunction *function;
    } known[] = {
        {"pcall", &runtime->pcall},
        {"xpcall", &runtime->xpcall},
        {"error", &runtime->error},
        {"assert", &runtime->assert},
    };
    lua_State *L = luaL_newstate();
    if (!L)
        return;
    luaL_requiref(L, LUA_GNAME, luaopen_base, 0);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        lua_getfield(L, -1, known[i].name);
        *known[i].function = lua_tocfunction(L, -1);
        lua_pop(L, 1);
    }
    lua_close(L);
}

void runtime_open_cancellation(lua_State *L, struct runtime *runtime) {
    find_known(runtime);
    lua_newtable(L);
    lua_newtable(L);
    lua_pushcfunction(L, cancelled_text);
    lua_setfield(L, -2, "__tostring");
    lua_setmetatable(L, -2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &cancelled_key);
}
