/* task: tasks and conditions as Lua sees them, core.task. */
#include "bindings/task.h"

#include "bindings/fail.h"
#include "bindings/module.h"
#include "core/err.h"

#include <link.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#define CONDITION_TYPE "p2pd.condition"

static const double MAX_SLEEP_S = 1e9;

static struct task *check_task(lua_State *L) {
    return luaL_checkudata(L, 1, TASK_TYPE);
}

/* task.spawn(function, ...) -> task. It starts when the caller parks. */
static int spawn(lua_State *L) {
    luaL_checktype(L, 1, LUA_TFUNCTION);
    task_spawn(L, lua_gettop(L) - 1);
    return 1;
}

static int slept(lua_State *L, int status, lua_KContext ctx) {
    (void)L, (void)status, (void)ctx;
    return 0;
}

/* task.sleep(seconds) */
static int sleep_(lua_State *L) {
    lua_Number seconds = luaL_checknumber(L, 1);
    luaL_argcheck(L, seconds >= 0, 1, "a time is a number of seconds, zero or more");
    struct wait *wait = wait_begin(L);
    if (seconds > MAX_SLEEP_S)
        seconds = MAX_SLEEP_S;
    return wait_park(L, wait, seconds, NULL, NULL, slept, 0);
}

/* --- task objects ---------------------------------------------------------------------------- */

static int waited(lua_State *L, int status, lua_KContext ctx) {
    (void)ctx;
    if (status != 0)
        return push_failure(L, status, "waiting for task %d", (int)check_task(L)->id);
    return task_results(L, 1);
}

static int task_wait(lua_State *L) {
    struct task *task = check_task(L);
    double timeout_s = check_timeout(L, 2, -1);
    if (task_ended(task))
        return task_results(L, 1);
    if (task == task->runtime->current)
        return luaL_error(L, "a task cannot wait for itself");
    struct wait *wait = wait_begin(L);
    wait_list_add(&task->waiters, wait);
    return wait_park(L, wait, timeout_s, wait_list_remove, wait, waited, 0);
}

static int cancel(lua_State *L) {
    task_cancel(check_task(L));
    return 0;
}

static const char *const state_names[] = {
    [TASK_READY] = "ready", [TASK_RUNNING] = "running", [TASK_PARKED] = "parked",
    [TASK_DONE] = "done",   [TASK_FAILED] = "failed",   [TASK_CANCELLED] = "cancelled",
};

/* task:status() -> "ready", "running", "parked", "done", "failed" or "cancelled" */
static int status(lua_State *L) {
    lua_pushstring(L, state_names[check_task(L)->state]);
    return 1;
}

/* task:observe() -> task. A failure of it is somebody's to handle: it is not printed. */
static int observe(lua_State *L) {
    check_task(L)->observed = true;
    lua_settop(L, 1);
    return 1;
}

/* task:traceback() -> text of its error and where it was raised; or of where it is parked now */
static int traceback(lua_State *L) {
    struct task *task = check_task(L);
    if (task->state == TASK_FAILED)
        task_push_traceback(L, 1);
    else
        luaL_traceback(L, task->thread, NULL, 0);
    return 1;
}

static int task_tostring(lua_State *L) {
    struct task *task = check_task(L);
    lua_pushfstring(L, "task %d (%s)", (int)task->id, state_names[task->state]);
    return 1;
}

/* task.current() -> the running task, or nil */
static int current(lua_State *L) {
    struct task *task = runtime_of(L)->current;
    if (task)
        task_push(L, task);
    else
        lua_pushnil(L);
    return 1;
}

/* task.list() -> all tasks that have not ended, the youngest first */
static int list(lua_State *L) {
    struct runtime *runtime = runtime_of(L);
    lua_createtable(L, (int)runtime->live_count, 0);
    lua_Integer n = 0;
    for (struct task *task = runtime->live; task; task = task->next_live) {
        task_push(L, task);
        lua_rawseti(L, -2, ++n);
    }
    return 1;
}

static int now(lua_State *L) {
    lua_pushnumber(L, (double)runtime_now_ns(runtime_of(L)) / 1e9);
    return 1;
}

/* task.virtual(start) makes all deadlines pass as soon as nothing else can run; virtual() ends it.
 * For specs of strategies: sockets and other processes keep to real time. */
static int virtual_(lua_State *L) {
    struct runtime *runtime = runtime_of(L);
    lua_Number start = luaL_optnumber(L, 1, 0);
    luaL_argcheck(L, start >= 0 && start < 1e9, 1, "a time is a number of seconds");
    if (timers_first(&runtime->timers))
        return luaL_error(L, "the clock cannot be changed while tasks wait for a time");
    runtime->virtual_now_ns = lua_isnoneornil(L, 1) ? 0 : (uint64_t)(start * 1e9) + 1;
    return 0;
}

/* The pages of a program's or library's file that are never written: those that are used again come
 * back from the system's cache. */
static int let_go(struct dl_phdr_info *object, size_t size, void *unused) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    (void)size, (void)unused;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];
        uintptr_t from = (object->dlpi_addr + part->p_vaddr + page - 1) & ~(page - 1);
        uintptr_t to = (object->dlpi_addr + part->p_vaddr + part->p_filesz) & ~(page - 1);
        if (part->p_type == PT_LOAD && !(part->p_flags & PF_W) && to > from)
            madvise((void *)from, to - from, MADV_DONTNEED);
    }
    return 0;
}

/* task.settle(): collects what is garbage, and gives the system back what is free, and what of
 * files only starting has needed: of OpenSSL that is 2 MiB. */
static int settle(lua_State *L) {
    lua_gc(L, LUA_GCCOLLECT);
    malloc_trim(0);
    dl_iterate_phdr(let_go, NULL);
    return 0;
}

/* task.run(function, ...) -> what it returns. Runs the loop until the function, as a task, has
 * ended; for programs whose main program is not ours (stock Lua, busted). */
static int run(lua_State *L) {
    luaL_checktype(L, 1, LUA_TFUNCTION);
    struct runtime *runtime = runtime_of(L);
    if (runtime->current)
        return luaL_error(L, "run is for the main program; in a task call the function");
    struct task *task = task_spawn(L, lua_gettop(L) - 1);
    int result = runtime_run(runtime, task);
    if (result == 0)
        return task_results(L, 1);
    luaL_traceback(L, task->thread, NULL, 0);
    push_refusal(L, result, "every task waits, and nothing is left that could wake one; %s",
                 lua_tostring(L, -1));
    task_cancel(task);
    runtime_run(runtime, task);
    return 3;
}

/* --- conditions ------------------------------------------------------------------------------ */

static struct wait_link *check_condition(lua_State *L) {
    return luaL_checkudata(L, 1, CONDITION_TYPE);
}

/* task.condition() -> condition: tasks wait for it, others wake them; it keeps no state. */
static int condition(lua_State *L) {
    wait_list_init(lua_newuserdatauv(L, sizeof(struct wait_link), 0));
    luaL_setmetatable(L, CONDITION_TYPE);
    return 1;
}

static int signalled(lua_State *L, int result, lua_KContext ctx) {
    (void)ctx;
    if (result != 0)
        return push_failure(L, result, "waiting");
    lua_pushboolean(L, 1);
    return 1;
}

/* condition:wait([timeout]) -> true, or nil, message, "ETIMEDOUT" */
static int condition_wait(lua_State *L) {
    struct wait_link *waits = check_condition(L);
    double timeout_s = check_timeout(L, 2, -1);
    struct wait *wait = wait_begin(L);
    wait_list_add(waits, wait);
    return wait_park(L, wait, timeout_s, wait_list_remove, wait, signalled, 0);
}

/* condition:signal([count]) -> how many tasks were woken; without a count all that wait. */
static int condition_signal(lua_State *L) {
    struct wait_link *waits = check_condition(L);
    lua_Integer count = luaL_optinteger(L, 2, LUA_MAXINTEGER), woken = 0;
    for (struct wait *wait; woken < count && (wait = wait_list_first(waits)); woken++) {
        wait_list_remove(wait);
        wait_post(wait, 0);
    }
    lua_pushinteger(L, woken);
    return 1;
}

static const luaL_Reg task_methods[] = {
    {"wait", task_wait},  {"cancel", cancel},       {"status", status},
    {"observe", observe}, {"traceback", traceback}, {NULL, NULL},
};

static const luaL_Reg condition_methods[] = {
    {"wait", condition_wait}, {"signal", condition_signal}, {NULL, NULL}};

static const luaL_Reg functions[] = {
    {"spawn", spawn}, {"sleep", sleep_},     {"current", current},
    {"list", list},   {"now", now},          {"settle", settle},
    {"run", run},     {"virtual", virtual_}, {"condition", condition},
    {NULL, NULL},
};

int open_task(lua_State *L) {
    module_type(L, TASK_TYPE, task_methods,
                (const luaL_Reg[]){{"__tostring", task_tostring}, {NULL, NULL}});
    module_type(L, CONDITION_TYPE, condition_methods, (const luaL_Reg[]){{NULL, NULL}});
    luaL_newlib(L, functions);
    task_push_cancelled(L);
    lua_setfield(L, -2, "cancelled");
    return 1;
}
