#include "bindings/task.h"

#include "core/err.h"
#include "core/loop.h"

#include <lualib.h>
#include <stdlib.h>
#include <string.h>

enum { READY_AT_ONCE = 128 }; /* tasks that run before the loop looks at its sockets again */

static const uint64_t NS_PER_MS = 1000000, NS_PER_S = 1000000000;

/* --- lists of waits ------------------------------------------------------------------------ */

void wait_list_init(struct wait_link *list) {
    list->next = list->previous = list;
}

void wait_list_add(struct wait_link *list, struct wait *wait) {
    wait->link = (struct wait_link){list, list->previous};
    list->previous->next = &wait->link;
    list->previous = &wait->link;
}

struct wait *wait_list_first(const struct wait_link *list) {
    return list->next == list ? NULL : container_of(list->next, struct wait, link);
}

void wait_list_remove(void *wait) {
    struct wait_link *link = &((struct wait *)wait)->link;
    if (!link->next)
        return;
    link->next->previous = link->previous;
    link->previous->next = link->next;
    link->next = link->previous = NULL;
}

/* --- time ---------------------------------------------------------------------------------- */

uint64_t runtime_now_ns(struct runtime *runtime) {
    return runtime->virtual_now_ns ? runtime->virtual_now_ns : uv_hrtime();
}

void push_deadline(lua_State *L, double timeout_s) {
    if (timeout_s >= 0)
        timeout_s += (double)runtime_now_ns(runtime_of(L)) / (double)NS_PER_S;
    lua_pushnumber(L, timeout_s);
}

double time_left(lua_State *L, int index) {
    double deadline = lua_tonumber(L, index);
    if (deadline < 0)
        return -1;
    double left = deadline - (double)runtime_now_ns(runtime_of(L)) / (double)NS_PER_S;
    return left > 0 ? left : 0;
}

static void timer_fired(uv_timer_t *timer);

/* The timer is left alone when it would only be moved to a later time: it fires early then, finds
 * nothing due and is set again, which is cheaper than moving it at each wait. */
static void arm(struct runtime *runtime) {
    struct deadline *first = timers_first(&runtime->timers);
    if (!first) {
        uv_timer_stop(&runtime->timer);
        return;
    }
    uint64_t ms = 0;
    if (!runtime->virtual_now_ns) {
        uint64_t now = uv_hrtime();
        ms = first->at_ns > now ? (first->at_ns - now + NS_PER_MS - 1) / NS_PER_MS : 0;
        uv_update_time(runtime->loop);
        if (uv_is_active((uv_handle_t *)&runtime->timer) &&
            uv_timer_get_due_in(&runtime->timer) <= ms)
            return;
    }
    uv_timer_start(&runtime->timer, timer_fired, ms, 0);
}

static void deadline_set(struct runtime *runtime, struct deadline *deadline, double seconds) {
    double ns = seconds * (double)NS_PER_S;
    uint64_t now = runtime_now_ns(runtime);
    uint64_t wait = ns < 9e18 ? (uint64_t)ns : (uint64_t)9e18;
    if (timers_add(&runtime->timers, deadline, now + wait) == 0 &&
        timers_first(&runtime->timers) == deadline)
        arm(runtime);
}

static void deadline_unset(struct runtime *runtime, struct deadline *deadline) {
    if (!deadline->place)
        return;
    timers_remove(&runtime->timers, deadline);
    if (!timers_first(&runtime->timers))
        arm(runtime);
}

/* --- turns --------------------------------------------------------------------------------- */

static void run_ready(struct runtime *runtime);

static void idle_fired(uv_idle_t *idle) {
    run_ready(container_of(idle, struct runtime, idle));
}

static void make_ready(struct task *task) {
    struct runtime *runtime = task->runtime;
    task->state = TASK_READY;
    task->next_ready = NULL;
    *runtime->ready_end = task;
    runtime->ready_end = &task->next_ready;
    uv_idle_start(&runtime->idle, idle_fired);
}

static void end_wait(struct task *task, int status) {
    struct wait *wait = &task->wait;
    deadline_unset(task->runtime, &wait->deadline);
    wait->status = status;
    wait->detach = NULL;
}

static void end_wait_early(struct task *task, int status) {
    wait_detach detach = task->wait.detach;
    void *arg = task->wait.arg;
    end_wait(task, status);
    if (detach)
        detach(arg);
}

static void finish(struct task *task, enum task_state state);

/* Runs the task until it parks or ends. Its values for the coroutine lie on its stack already. */
static void resume(struct task *task) {
    struct runtime *runtime = task->runtime;
    struct task *before = runtime->current;
    int arguments = task->started ? 0 : lua_gettop(task->thread) - 1, results;
    task->started = true;
    task->state = TASK_RUNNING;
    runtime->current = task;
    int status = lua_resume(task->thread, runtime->main, arguments, &results);
    runtime->current = before;
    if (status == LUA_YIELD && task->state == TASK_PARKED)
        return;
    if (status == LUA_YIELD) {
        lua_resetthread(task->thread);
        lua_settop(task->thread, 0);
        lua_pushliteral(task->thread, "a task waits with sleep, recv and the like; "
                                      "coroutine.yield is for coroutines of your own");
        finish(task, TASK_FAILED);
    } else if (status != LUA_OK) { /* not even the message handler could run */
        lua_resetthread(task->thread);
        finish(task, TASK_FAILED);
    } else {
        finish(task, task->state == TASK_RUNNING ? TASK_DONE : task->state);
    }
}

static void run_ready(struct runtime *runtime) {
    if (runtime->current)
        return;
    for (int i = 0; runtime->ready && i < READY_AT_ONCE; i++) {
        struct task *task = runtime->ready;
        runtime->ready = task->next_ready;
        if (!runtime->ready)
            runtime->ready_end = &runtime->ready;
        resume(task);
    }
    if (!runtime->ready)
        uv_idle_stop(&runtime->idle);
}

void wait_post(struct wait *wait, int status) {
    struct task *task = container_of(wait, struct task, wait);
    if (task->state != TASK_PARKED)
        return;
    end_wait(task, status);
    make_ready(task);
}

void wait_wake(struct wait *wait, int status) {
    struct task *task = container_of(wait, struct task, wait);
    struct runtime *runtime = task->runtime;
    if (runtime->current || runtime->ready || task->state != TASK_PARKED) {
        wait_post(wait, status);
    } else {
        end_wait(task, status);
        resume(task);
    }
    run_ready(runtime);
}

static void timer_fired(uv_timer_t *timer) {
    struct runtime *runtime = container_of(timer, struct runtime, timer);
    struct deadline *first = timers_first(&runtime->timers);
    bool idle = !runtime->ready; /* virtual time stands still while somebody has something to do */
    if (runtime->virtual_now_ns && idle && first && first->at_ns > runtime->virtual_now_ns)
        runtime->virtual_now_ns = first->at_ns;
    uint64_t now = runtime_now_ns(runtime);
    while ((first = timers_first(&runtime->timers)) && first->at_ns <= now) {
        timers_remove(&runtime->timers, first);
        first->passed(first);
    }
    arm(runtime);
    run_ready(runtime);
}

/* --- cancellation -------------------------------------------------------------------------- */

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

static int raise_cancellation(lua_State *L, struct task *task);

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
            raise_cancellation(L, task);
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

static int raise_cancellation(lua_State *L, struct task *task) {
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
    raise_cancellation(L, task);
}

/* Whether a scope of a cancelled task is being left as usual: its __close handlers may wait too. */
static bool in_close_handler(lua_State *L) {
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
static void close_by_force(struct task *task) {
    struct runtime *runtime = task->runtime;
    if (task->state == TASK_PARKED)
        end_wait_early(task, UV_ECANCELED);
    struct task *before = runtime->current;
    task->state = TASK_RUNNING;
    runtime->current = task;
    lua_resetthread(task->thread);
    runtime->current = before;
    lua_settop(task->thread, 0);
    finish(task, TASK_CANCELLED);
}

void task_cancel(struct task *task) {
    struct runtime *runtime = task->runtime;
    if (task->cancelled || task_ended(task))
        return;
    task->cancelled = true;
    deadline_set(runtime, &task->grace, runtime->grace_s);
    if (task->state == TASK_PARKED) {
        end_wait_early(task, UV_ECANCELED);
        task->raise = true;
        make_ready(task);
    }
}

void task_cancel_all(struct runtime *runtime) {
    runtime->leaving = true;
    for (struct task *task = runtime->live; task; task = task->next_live)
        task_cancel(task);
}

static void wait_deadline_passed(struct deadline *deadline) {
    struct task *task = container_of(deadline, struct task, wait.deadline);
    end_wait_early(task, UV_ETIMEDOUT);
    make_ready(task);
}

static void grace_passed(struct deadline *deadline) {
    struct task *task = container_of(deadline, struct task, grace);
    if (task->state == TASK_PARKED)
        close_by_force(task);
    else /* it is about to run and may park once more */
        deadline_set(task->runtime, &task->grace, task->runtime->grace_s);
}

/* --- parking ------------------------------------------------------------------------------- */

struct wait *wait_begin(lua_State *L) {
    struct task *task = runtime_of(L)->current;
    if (!task)
        luaL_error(L, "not in a task: what waits belongs into p2pd.spawn or p2pd.run");
    if (task->thread != L)
        luaL_error(L, "not in a task: a coroutine of the script's own cannot wait, "
                      "start it with p2pd.spawn");
    if (!lua_isyieldable(L))
        luaL_error(L, "cannot wait here: a C function (require, table.sort, string.gsub, "
                      "__tostring) stands between this call and its task");
    if (task->cancelled && !task->unwinding && !in_close_handler(L))
        raise_cancellation(L, task);
    return &task->wait;
}

static int resumed(lua_State *L, int status, lua_KContext ctx) {
    (void)status;
    struct task *task = runtime_of(L)->current;
    if (task->raise) {
        task->raise = false;
        return raise_cancellation(L, task);
    }
    return task->wait.k(L, task->wait.status, ctx);
}

int wait_park(lua_State *L, struct wait *wait, double timeout_s, wait_detach detach, void *arg,
              lua_KFunction k, lua_KContext ctx) {
    struct task *task = container_of(wait, struct task, wait);
    wait->detach = detach;
    wait->arg = arg;
    wait->k = k;
    task->state = TASK_PARKED;
    if (timeout_s >= 0)
        deadline_set(task->runtime, &wait->deadline, timeout_s);
    return lua_yieldk(L, 0, ctx, resumed);
}

/* --- the life of a task -------------------------------------------------------------------- */

enum { VALUE_THREAD = 1, VALUE_TRACEBACK, VALUE_INHERITED, VALUE_INHERITED_TRACEBACK, VALUES = 4 };

void task_push(lua_State *L, struct task *task) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, task);
}

/* Message handler of every task: keeps the traceback of the place where the error was raised. When
 * the error came out of another task by wait(), that one's traceback is the one that tells. */
static int keep_traceback(lua_State *L) {
    struct task *task = runtime_of(L)->current;
    if (!task || task_is_cancelled(L, 1))
        return 1;
    task_push(L, task);
    const char *text;
    lua_getiuservalue(L, 2, VALUE_INHERITED);
    if (!lua_isnil(L, -1) && lua_rawequal(L, -1, 1)) {
        lua_getiuservalue(L, 2, VALUE_INHERITED_TRACEBACK);
        text = lua_tostring(L, -1);
    } else if (lua_isstring(L, 1) || luaL_getmetafield(L, 1, "__tostring") != LUA_TNIL) {
        text = luaL_tolstring(L, 1, NULL);
    } else {
        text = lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 1));
    }
    luaL_traceback(L, L, text, 1);
    lua_setiuservalue(L, 2, VALUE_TRACEBACK);
    lua_settop(L, 1);
    return 1;
}

static int body_ended(lua_State *L, int status, lua_KContext ctx) {
    (void)ctx;
    if (status == LUA_OK || status == LUA_YIELD)
        return lua_gettop(L) - 1;
    struct task *task = runtime_of(L)->current;
    task->state = task_is_cancelled(L, -1) ? TASK_CANCELLED : TASK_FAILED;
    return 1;
}

/* The body runs under a protected call inside of its coroutine, so that an error closes its <close>
 * variables while they can still wait. */
static int body(lua_State *L) {
    lua_pushcfunction(L, keep_traceback);
    lua_insert(L, 1);
    int status = lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 1, 0, body_ended);
    return body_ended(L, status, 0);
}

struct task *task_spawn(lua_State *L, int arguments) {
    struct runtime *runtime = runtime_of(L);
    if (runtime->ended)
        luaL_error(L, "the Lua state is being closed: no task can start");
    struct task *task = lua_newuserdatauv(L, sizeof *task, VALUES);
    memset(task, 0, sizeof *task);
    luaL_setmetatable(L, TASK_TYPE);
    lua_State *thread = lua_newthread(L);
    lua_setiuservalue(L, -2, VALUE_THREAD);
    lua_sethook(thread, NULL, 0, 0); /* it has its maker's, who may be cancelled */
    if (!lua_checkstack(thread, arguments + 2))
        luaL_error(L, "too many arguments for a task");
    task->runtime = runtime;
    task->thread = thread;
    task->id = ++runtime->next_id;
    task->wait.deadline.passed = wait_deadline_passed;
    task->grace.passed = grace_passed;
    wait_list_init(&task->waiters);
    task->next_live = runtime->live;
    task->live_link = &runtime->live;
    if (runtime->live)
        runtime->live->live_link = &task->next_live;
    runtime->live = task;
    runtime->live_count++;
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, task);
    lua_insert(L, -(arguments + 2));
    lua_pushcfunction(thread, body);
    lua_xmove(L, thread, arguments + 1);
    make_ready(task);
    if (runtime->leaving)
        task_cancel(task);
    return task;
}

static void finish(struct task *task, enum task_state state) {
    struct runtime *runtime = task->runtime;
    task->state = state;
    deadline_unset(runtime, &task->wait.deadline);
    deadline_unset(runtime, &task->grace);
    *task->live_link = task->next_live;
    if (task->next_live)
        task->next_live->live_link = task->live_link;
    runtime->live_count--;
    for (struct wait *wait; (wait = wait_list_first(&task->waiters));) {
        task->observed = true;
        wait_list_remove(wait);
        wait_post(wait, 0);
    }
    if (runtime->target == task)
        uv_stop(runtime->loop);
    if (runtime->leaving && !runtime->live)
        uv_stop(runtime->loop);
    if (state == TASK_FAILED && !task->observed)
        runtime->on_failure(runtime, task);
    lua_pushnil(runtime->main);
    lua_rawsetp(runtime->main, LUA_REGISTRYINDEX, task);
}

void task_push_traceback(lua_State *L, int index) {
    if (lua_getiuservalue(L, index, VALUE_TRACEBACK) != LUA_TNIL)
        return;
    lua_pop(L, 1);
    struct task *task = lua_touserdata(L, index);
    lua_pushstring(L, luaL_tolstring(task->thread, -1, NULL));
    lua_pop(task->thread, 1);
}

int task_results(lua_State *L, int index) {
    struct task *task = lua_touserdata(L, index);
    task->observed = true;
    if (task->state == TASK_CANCELLED) {
        lua_pushnil(L);
        lua_pushliteral(L, "ECANCELED: the task was cancelled");
        lua_pushliteral(L, "ECANCELED");
        return 3;
    }
    int count = lua_gettop(task->thread);
    luaL_checkstack(L, count, "too many results");
    if (!lua_checkstack(task->thread, count))
        luaL_error(L, "too many results");
    for (int i = 1; i <= count; i++)
        lua_pushvalue(task->thread, i);
    lua_xmove(task->thread, L, count);
    if (task->state == TASK_DONE)
        return count;
    struct task *waiting = runtime_of(L)->current;
    if (waiting) {
        task_push(L, waiting);
        lua_pushvalue(L, -2);
        lua_setiuservalue(L, -2, VALUE_INHERITED);
        task_push_traceback(L, index);
        lua_setiuservalue(L, -2, VALUE_INHERITED_TRACEBACK);
        lua_pop(L, 1);
    }
    return lua_error(L);
}

/* --- the runtime --------------------------------------------------------------------------- */

static const char runtime_key;

/* Asked several times by each call that waits, so the last answer is kept: a Lua state is known by
 * its registry, and stays in one thread. */
static _Thread_local struct {
    const void *registry;
    struct runtime *runtime;
} last;

struct runtime *runtime_of(lua_State *L) {
    const void *registry = lua_topointer(L, LUA_REGISTRYINDEX);
    if (last.registry != registry) {
        lua_rawgetp(L, LUA_REGISTRYINDEX, &runtime_key);
        last.runtime = lua_touserdata(L, -1);
        last.registry = registry;
        lua_pop(L, 1);
    }
    return last.runtime;
}

uv_loop_t *wait_loop(lua_State *L) {
    return runtime_of(L)->loop;
}

lua_State *wait_main(lua_State *L) {
    return runtime_of(L)->main;
}

int runtime_run(struct runtime *runtime, struct task *task) {
    struct task *before = runtime->target;
    bool alive = true;
    task->observed = true;
    run_ready(runtime);
    runtime->target = task; /* from now on its end stops the loop: uv_stop lasts until one turns */
    while (!task_ended(task) && alive)
        alive = uv_run(runtime->loop, UV_RUN_DEFAULT) != 0;
    runtime->target = before;
    return task_ended(task) ? 0 : ERR_EDEADLOCK;
}

int runtime_drain(struct runtime *runtime) {
    run_ready(runtime);
    while (!(runtime->leaving && !runtime->live))
        if (uv_run(runtime->loop, UV_RUN_DEFAULT) == 0)
            return runtime->live ? ERR_EDEADLOCK : 0;
    return 0;
}

static void runtime_handle_closed(uv_handle_t *handle) {
    (void)handle;
}

/* No task runs any more, whatever the loop still calls. */
static void runtime_end(struct runtime *runtime) {
    runtime->ended = true;
    while (runtime->live)
        close_by_force(runtime->live);
    runtime->ready = NULL;
    runtime->ready_end = &runtime->ready;
    uv_idle_stop(&runtime->idle);
}

void wait_end(lua_State *L) {
    runtime_end(runtime_of(L));
}

static int runtime_gc(lua_State *L) {
    struct runtime *runtime = lua_touserdata(L, 1);
    runtime_end(runtime);
    timers_free(&runtime->timers);
    uv_handle_t *handles[] = {(uv_handle_t *)&runtime->timer, (uv_handle_t *)&runtime->idle};
    for (size_t i = 0; i < 2; i++)
        uv_close(handles[i], runtime_handle_closed);
    uv_run(runtime->loop, UV_RUN_NOWAIT);
    return 0;
}

static void print_failure(struct runtime *runtime, struct task *task) {
    lua_State *L = runtime->main;
    task_push(L, task);
    task_push_traceback(L, lua_gettop(L));
    lua_writestringerror("p2pd-lua: a task failed: %s\n", lua_tostring(L, -1));
    lua_pop(L, 2);
    runtime->failures++;
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

void runtime_open(lua_State *L, uv_loop_t *loop) {
    struct runtime *runtime = lua_newuserdatauv(L, sizeof *runtime, 0);
    memset(runtime, 0, sizeof *runtime);
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
    runtime->main = lua_tothread(L, -1);
    lua_pop(L, 1);
    runtime->loop = loop;
    runtime->ready_end = &runtime->ready;
    runtime->grace_s = 5;
    runtime->on_failure = print_failure;
    find_known(runtime);
    uv_timer_init(loop, &runtime->timer);
    uv_idle_init(loop, &runtime->idle);
    lua_newtable(L);
    lua_pushcfunction(L, runtime_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &runtime_key);
    last.registry = NULL; /* an earlier state's may have lain at the same address */
    lua_newtable(L);
    lua_newtable(L);
    lua_pushcfunction(L, cancelled_text);
    lua_setfield(L, -2, "__tostring");
    lua_setmetatable(L, -2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &cancelled_key);
}
