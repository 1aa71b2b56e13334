/* console: what a Unix socket between two programs of one user takes beyond luv, core.console. */
#include "bindings/fail.h"
#include "bindings/module.h"
#include "bindings/task.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    READ_SIZE = 64 * 1024,
    BACKLOG = 8,
    OTHERS = 0177, /* of a socket's mode: only its owner reads and writes */
};

/* Closes and fails; errno says why. */
static int fail(lua_State *L, int fd, const char *what) {
    int status = uv_translate_sys_error(errno);
    if (fd >= 0)
        close(fd);
    return push_failure(L, status, "%s", what);
}

/* folder(path) -> descriptor, owner, mode; of a folder, and of no symbolic link to one */
static int folder(lua_State *L) {
    const char *path = luaL_checkstring(L, 1);
    struct stat stat;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &stat) != 0)
        return fail(L, fd, path);
    lua_pushinteger(L, fd);
    lua_pushinteger(L, stat.st_uid);
    lua_pushinteger(L, stat.st_mode & 07777);
    return 3;
}

/* listen(path) -> descriptor of a socket that came into being open to its owner alone */
static int listen_(lua_State *L) {
    size_t length;
    const char *path = luaL_checklstring(L, 1, &length);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    luaL_argcheck(L, length < sizeof address.sun_path, 1, "the path is too long");
    memcpy(address.sun_path, path, length);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return fail(L, fd, "a console's socket");
    mode_t before = umask(OTHERS);
    int status = bind(fd, (struct sockaddr *)&address, sizeof address), error = errno;
    umask(before);
    errno = error;
    if (status != 0 || listen(fd, BACKLOG) != 0)
        return fail(L, fd, "a console's socket");
    lua_pushinteger(L, fd);
    return 1;
}

/* peer(descriptor) -> user, process: who connected, or who listens (unix(7), SO_PEERCRED) */
static int peer(lua_State *L) {
    int fd = (int)luaL_checkinteger(L, 1);
    struct ucred who;
    socklen_t size = sizeof who;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) != 0)
        return fail(L, -1, "who is at the other end");
    lua_pushinteger(L, who.uid);
    lua_pushinteger(L, who.pid);
    return 2;
}

/* read(descriptor, timeout) -> bytes, "" when none came in that time; "EOF" as ever. It keeps the
 * whole program waiting: for where nothing else can run anyway. */
static int read_(lua_State *L) {
    static char bytes[READ_SIZE];
    int fd = (int)luaL_checkinteger(L, 1);
    int timeout_ms = (int)(check_timeout(L, 2, 0) * 1000);
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    ssize_t n = -1;
    errno = EAGAIN;
    if (poll(&readable, 1, timeout_ms) > 0)
        n = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n == 0)
        return push_refusal(L, UV_EOF, "the other side has gone");
    if (n < 0 && errno != EAGAIN && errno != EINTR)
        return fail(L, -1, "the console");
    lua_pushlstring(L, bytes, n > 0 ? (size_t)n : 0);
    return 1;
}

/* break_in(task): raises the cancellation of the running task on the spot, and again while the task
 * swallows it; for a hook of that task's, which has cancelled it. */
static int break_in(lua_State *L) {
    struct task *task = luaL_checkudata(L, 1, TASK_TYPE);
    if (task->runtime->current == task && !task_ended(task))
        lua_sethook(task->thread, task_break_in,
                    LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
    return 0;
}

int open_console(lua_State *L) {
    luaL_newlib(L, ((const luaL_Reg[]){{"folder", folder},
                                       {"listen", listen_},
                                       {"peer", peer},
                                       {"read", read_},
                                       {"break_in", break_in},
                                       {NULL, NULL}}));
    return 1;
}
