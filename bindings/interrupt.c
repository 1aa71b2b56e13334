#include "bindings/interrupt.h"

#include "bindings/task.h"
#include "bindings/terminal.h"
#include "core/loop.h"

#include <lauxlib.h>
#include <signal.h>
#include <unistd.h>

static struct {
    struct runtime *runtime;
    uv_async_t async;
    volatile sig_atomic_t last;       /* the signal that came last */
    volatile sig_atomic_t state;      /* what is being done about it */
    volatile sig_atomic_t handled;    /* a function of Lua's decides instead of us */
    struct task *volatile foreground; /* the one task that may then be broken into */
    volatile sig_atomic_t broke_in;   /* the task that ran then was broken into */
} interrupt;

enum { IDLE, PENDING, LEAVING };

static const char handler_key;

/* Whether the REPL decides what the signal means. */
static bool is_handled(int signal_number) {
    return signal_number == SIGINT && interrupt.handled && interrupt.state != LEAVING &&
           !interrupt.runtime->leaving;
}

/* In the signal's context: only what lua.c does there too, and libuv's one safe function. */
static void caught(int signal_number) {
    bool again = interrupt.state != IDLE;
    bool handled = is_handled(signal_number);
    if (again && !handled && !is_handled(interrupt.last)) {
        terminal_restore();
        _exit(128 + signal_number);
    }
    interrupt.last = signal_number;
    interrupt.state = PENDING;
    struct task *task = interrupt.runtime->current;
    interrupt.broke_in = task && (again || !handled || task == interrupt.foreground);
    if (interrupt.broke_in)
        lua_sethook(task->thread, task_break_in,
                    LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
    uv_async_send(&interrupt.async);
}

static void in_loop(uv_async_t *async) {
    (void)async;
    if (interrupt.state != PENDING)
        return;
    lua_State *L = interrupt.runtime->main;
    if (is_handled(interrupt.last)) {
        interrupt.state = IDLE;
        lua_rawgetp(L, LUA_REGISTRYINDEX, &handler_key);
        lua_pushboolean(L, interrupt.broke_in);
        if (lua_pcall(L, 1, 0, 0) != LUA_OK)
            lua_pop(L, 1);
        return;
    }
    interrupt.state = LEAVING;
    task_cancel_all(interrupt.runtime);
    uv_stop(interrupt.runtime->loop);
}

static int handle(lua_State *L) {
    if (!lua_isnoneornil(L, 1))
        luaL_checktype(L, 1, LUA_TFUNCTION);
    struct task *foreground = lua_isnoneornil(L, 2) ? NULL : luaL_checkudata(L, 2, TASK_TYPE);
    interrupt.foreground = foreground;
    interrupt.handled = !lua_isnoneornil(L, 1);
    lua_settop(L, 1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &handler_key);
    return 0;
}

static int leave(lua_State *L) {
    task_cancel_all(runtime_of(L));
    return 0;
}

int open_interrupt(lua_State *L) {
    luaL_newlib(L, ((const luaL_Reg[]){{"handle", handle}, {"leave", leave}, {NULL, NULL}}));
    return 1;
}

int interrupt_signal(void) {
    return interrupt.state == IDLE ? 0 : interrupt.last;
}

static void closed(uv_handle_t *handle) {
    (void)handle;
}

static int uninstall(lua_State *L) {
    (void)L;
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    uv_close((uv_handle_t *)&interrupt.async, closed);
    return 0;
}

int interrupt_install(lua_State *L) {
    interrupt.runtime = runtime_of(L);
    int status = uv_async_init(interrupt.runtime->loop, &interrupt.async, in_loop);
    if (status != 0)
        return status;
    uv_unref((uv_handle_t *)&interrupt.async);
    lua_newuserdatauv(L, 1, 0);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, uninstall);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &interrupt);
    struct sigaction action = {.sa_handler = caught, .sa_flags = SA_RESTART};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    return 0;
}
