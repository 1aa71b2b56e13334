#include "bindings/task_inner.h"
#include "core/err.h"

#include <string.h>

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
    task->wait.deadline.passed = task_wait_deadline_passed;
    task->grace.passed = task_grace_passed;
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
    task_make_ready(task);
    if (runtime->leaving)
        task_cancel(task);
    return task;
}

void task_finish(struct task *task, enum task_state state) {
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
    runtime_run_ready(runtime);
    runtime->target = task; /* from now on its end stops the loop: uv_stop lasts until one turns */
    while (!task_ended(task) && alive)
        alive = uv_run(runtime->loop, UV_RUN_DEFAULT) != 0;
    runtime->target = before;
    return task_ended(task) ? 0 : ERR_EDEADLOCK;
}

int runtime_drain(struct runtime *runtime) {
    runtime_run_ready(runtime);
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
        task_close_by_force(runtime->live);
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
    uv_timer_init(loop, &runtime->timer);
    uv_idle_init(loop, &runtime->idle);
    lua_newtable(L);
    lua_pushcfunction(L, runtime_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &runtime_key);
    last.registry = NULL; /* an earlier state's may have lain at the same address */
    runtime_open_cancellation(L, runtime);
}
