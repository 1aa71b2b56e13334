/* p2pd-lua, the program: a Lua state, the loop, and the script's body as its first task. What the
 * arguments mean is decided in lua/p2pd/main.lua. */
#include "bindings/interrupt.h"
#include "bindings/line.h"
#include "bindings/module.h"
#include "bindings/source.h"
#include "bindings/task.h"

#include <fcntl.h>
#include <lualib.h>
#include <luv/luv.h>
#include <malloc.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What pipes receive becomes strings of up to 256 KiB that live for a moment. A page that is given
 * back to the system has to be cleared anew for the next one, which costs more than decrypting it.
 */
enum { MMAP_THRESHOLD = 1 << 20, TRIM_THRESHOLD = 4 << 20 };

/* Takes the relative entries out of package.path or .cpath: what lies in the current folder is not
 * loaded by surprise. */
static void drop_relative(lua_State *L, const char *field) {
    lua_getglobal(L, "package");
    lua_getfield(L, -1, field);
    const char *path = lua_tostring(L, -1);
    luaL_Buffer kept;
    luaL_buffinit(L, &kept);
    bool any = false;
    for (const char *end; *path; path = *end ? end + 1 : end) {
        end = path + strcspn(path, ";");
        if (*path != '/')
            continue;
        if (any)
            luaL_addchar(&kept, ';');
        luaL_addlstring(&kept, path, (size_t)(end - path));
        any = true;
    }
    luaL_pushresult(&kept);
    lua_setfield(L, -3, field);
    lua_pop(L, 2);
}

static int add_traceback(lua_State *L) {
    luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
    return 1;
}

/* Where there is no task to tell (a luv callback of the script's), the error is printed and the
 * program ends with status 1 when it ends. luv's own way would be to exit on the spot. */
static int call_from_luv(lua_State *L, int arguments, int results, int flags) {
    (void)flags;
    int base = lua_gettop(L) - arguments;
    lua_pushcfunction(L, add_traceback);
    lua_insert(L, base);
    int status = lua_pcall(L, arguments, results, base);
    lua_remove(L, base);
    if (status == LUA_OK)
        return results == LUA_MULTRET ? lua_gettop(L) - base + 1 : results;
    if (!line_report(L, "callback")) {
        runtime_of(L)->failures++;
        fprintf(stderr, "p2pd-lua: in a callback: %s\n", luaL_tolstring(L, -1, NULL));
    }
    lua_settop(L, base - 1);
    return -status;
}

static void push_arguments(lua_State *L, char **argv) {
    lua_newtable(L);
    for (int i = 0; argv[i]; i++) {
        lua_pushstring(L, argv[i]);
        lua_rawseti(L, -2, i);
    }
}

/* The part of a traceback that is the script's: main.lua, which called it, stands at its end. */
static int script_part(const char *traceback) {
    static const char between[] = "\n\t(...tail calls...)";
    const char *end = strstr(traceback, "p2pd/main.lua:");
    if (!end)
        return (int)strlen(traceback);
    while (end > traceback && *end != '\n')
        end--;
    size_t length = sizeof between - 1;
    if ((size_t)(end - traceback) >= length && strncmp(end - length, between, length) == 0)
        end -= length;
    return (int)(end - traceback);
}

/* Prints why the task did not end well; a task that was cancelled did as it was told. */
static int status_of(lua_State *L, struct task *task, int index) {
    if (task->state == TASK_DONE)
        return (int)lua_tointeger(task->thread, 1);
    if (task->state == TASK_FAILED) {
        task_push_traceback(L, index);
        const char *text = lua_tostring(L, -1);
        fprintf(stderr, "p2pd-lua: %.*s\n", script_part(text), text);
    }
    return EXIT_FAILURE;
}

static int report_deadlock(lua_State *L, struct runtime *runtime) {
    fprintf(stderr, "p2pd-lua: EDEADLOCK: every task waits, and nothing is left that could wake "
                    "one\n");
    for (struct task *task = runtime->live; task; task = task->next_live) {
        luaL_traceback(L, task->thread, NULL, 0);
        const char *text = lua_tostring(L, -1);
        fprintf(stderr, "task %u waits here: %.*s\n", task->id, script_part(text), text);
        lua_pop(L, 1);
    }
    return EXIT_FAILURE;
}

/* Whether -E stands among the options, as lua5.4 reads them; LUA_PATH is then not looked at. */
static bool ignores_environment(char **argv) {
    for (int i = 1; argv[i] && argv[i][0] == '-' && strcmp(argv[i], "-") && strcmp(argv[i], "--");
         i++) {
        if (strcmp(argv[i], "-E") == 0)
            return true;
        bool has_value = strcmp(argv[i], "-e") == 0 || strcmp(argv[i], "-l") == 0;
        if (has_value && !argv[++i])
            return false;
    }
    return false;
}

/* luv frees a handle that is still closing when the Lua state ends, and libuv's list of those that
 * close leads there then: one turn of the loop ends the closing first. */
static void finish_closing(lua_State *L) {
    uv_run(wait_loop(L), UV_RUN_NOWAIT);
}

/* os.exit(code, close) */
static int exit_(lua_State *L) {
    if (lua_toboolean(L, 2))
        finish_closing(L);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, 0);
    return 0;
}

static void replace_exit(lua_State *L) {
    lua_getglobal(L, "os");
    lua_getfield(L, -1, "exit");
    lua_pushcclosure(L, exit_, 1);
    lua_setfield(L, -2, "exit");
    lua_pop(L, 1);
}

/* What is opened next would take the place of a standard stream that is closed, and libuv refuses
 * to work with such. */
static void open_standard_streams(void) {
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) < 0)
            exit(EXIT_FAILURE);
}

static int program(lua_State *L) {
    char **argv = lua_touserdata(L, 1);
    if (ignores_environment(argv)) {
        lua_pushboolean(L, 1);
        lua_setfield(L, LUA_REGISTRYINDEX, "LUA_NOENV");
    }
    luaL_openlibs(L);
    drop_relative(L, "path");
    drop_relative(L, "cpath");
    luv_set_callback(L, call_from_luv);
    source_install(L);
    luaL_requiref(L, "p2pd.core", luaopen_p2pd_core, 0);
    replace_exit(L);
    open_interrupt(L);
    lua_setfield(L, -2, "interrupt");
    open_line(L);
    lua_setfield(L, -2, "line");
    open_portmap(L);
    lua_setfield(L, -2, "portmap");
    lua_pushliteral(L, P2PD_VERSION);
    lua_setfield(L, -2, "version");
    struct runtime *runtime = runtime_of(L);
    if (interrupt_install(L) != 0)
        return luaL_error(L, "the signal handlers could not be installed");
    if (source_load(L, "lua/p2pd/main.lua") != LUA_OK)
        return lua_error(L);
    push_arguments(L, argv);
    struct task *task = task_spawn(L, 1);
    int index = lua_gettop(L), status;
    bool stuck = runtime_run(runtime, task) != 0;
    if (!stuck && task->state == TASK_DONE && !interrupt_signal()) /* others may still be at work */
        stuck = runtime_drain(runtime) != 0;
    status = stuck && !interrupt_signal() ? report_deadlock(L, runtime) : 0;
    task_cancel_all(runtime);
    runtime_drain(runtime);
    if (!stuck)
        status = status_of(L, task, index);
    if (interrupt_signal())
        status = 128 + interrupt_signal();
    else if (status == 0 && runtime->failures)
        status = EXIT_FAILURE;
    lua_pushinteger(L, status);
    return 1;
}

int main(int argc, char **argv) {
    (void)argc;
    open_standard_streams();
    mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD);
    mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD);
    /* paho's threads do little: heaps of their own would only cost memory. */
    mallopt(M_ARENA_MAX, 1);
    /* Of OpenSSL's sentences only those about TLS are shown to anybody. */
    OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CRYPTO_STRINGS, NULL);
    lua_State *L = luaL_newstate();
    if (!L) {
        fprintf(stderr, "p2pd-lua: not enough memory to start\n");
        return EXIT_FAILURE;
    }
    lua_pushcfunction(L, program);
    lua_pushlightuserdata(L, argv);
    int status = EXIT_FAILURE;
    if (lua_pcall(L, 1, 1, 0) == LUA_OK)
        status = (int)lua_tointeger(L, -1);
    else
        fprintf(stderr, "p2pd-lua: %s\n", lua_tostring(L, -1));
    if (runtime_of(L))
        finish_closing(L);
    lua_close(L);
    return status;
}
