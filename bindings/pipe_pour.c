#include "bindings/pipe_inner.h"

#include "bindings/fail.h"
#include "bindings/module.h"
#include "core/err.h"
#include "core/loop.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define POUR_TYPE "p2pd.pour"

enum {
    BUFFER_SIZE = 256 * 1024,
    PIPE_CAPACITY = 1 << 20, /* what Linux allows everybody (/proc/sys/fs/pipe-max-size) */
    AT_ONCE = 16,            /* buffers, before the loop looks after others */
};

/* A descriptor of our own, so that whoever shares the given one keeps it as it was. */
struct pour {
    uv_poll_t poll;
    struct wait *wait;
    uint64_t moved;
    size_t start, end; /* what lies in the buffer */
    int fd, given;
    int flags;      /* of the given one, where it is not opened again but duplicated; else -1 */
    bool polls;     /* false for what is always ready: files */
    struct box *of; /* the pipe whose receiving side it has, or NULL */
    char buffer[BUFFER_SIZE];
};

static void on_closed(uv_handle_t *handle) {
    free(container_of(handle, struct pour, poll));
}

static void pour_free(struct pour *pour) {
    if (pour->of)
        pour->of->pouring = false;
    if (pour->flags >= 0)
        fcntl(pour->fd, F_SETFL, pour->flags);
    if (pour->fd != pour->given)
        close(pour->fd);
    if (pour->polls)
        uv_close((uv_handle_t *)&pour->poll, on_closed);
    else
        free(pour);
}

static int pour_close(lua_State *L) {
    struct pour **place = lua_touserdata(L, 1);
    if (*place)
        pour_free(*place);
    *place = NULL;
    return 0;
}

/* The same file, opened once more: that it does not block is then nobody else's business. A socket
 * cannot be opened so: it is duplicated, and does not block meanwhile. A file on a disk shares its
 * position. */
static int open_again(int given, int *restore) {
    char path[32];
    struct stat stat;
    if (fstat(given, &stat) != 0)
        return -errno;
    int flags = fcntl(given, F_GETFL);
    if (S_ISREG(stat.st_mode))
        return given;
    snprintf(path, sizeof path, "/proc/self/fd/%d", given);
    int fd = open(path, (flags & O_ACCMODE) | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        fd = fcntl(given, F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
            return -errno;
        fcntl(fd, F_SETFL, flags | O_NONBLOCK);
        *restore = flags;
    }
    /* Whoever is at the other end is woken less often. Only a pipe takes this. */
    fcntl(fd, F_SETPIPE_SZ, PIPE_CAPACITY);
    return fd;
}

static int pour_new(uv_loop_t *loop, int given, struct pour **out) {
    struct pour *pour = malloc(sizeof *pour);
    if (!pour)
        return UV_ENOMEM;
    memset(pour, 0, offsetof(struct pour, buffer));
    pour->given = given;
    pour->flags = -1;
    pour->fd = open_again(given, &pour->flags);
    if (pour->fd < 0) {
        int status = pour->fd;
        free(pour);
        return status;
    }
    pour->polls = pour->fd != given && uv_poll_init(loop, &pour->poll, pour->fd) == 0;
    *out = pour;
    return 0;
}

/* Begins a call: the stack is pipe, pour. Returns 0, or what the call returns. */
static int begin(lua_State *L, struct pour **out) {
    struct box *box = check_pipe(L);
    int fd = (int)luaL_checkinteger(L, 2);
    wait_begin(L);
    lua_settop(L, 1);
    struct pour **place = lua_newuserdatauv(L, sizeof *place, 0);
    *place = NULL;
    luaL_setmetatable(L, POUR_TYPE);
    lua_toclose(L, 2);
    int status = box->pipe ? pour_new(wait_loop(L), fd, place) : ERR_ECLOSED;
    *out = *place;
    if (status == ERR_ECLOSED)
        return push_closed(L);
    return status == 0 ? 0 : push_failure(L, status, "descriptor %d", fd);
}

static struct pour *pour_of(lua_State *L) {
    return *(struct pour **)lua_touserdata(L, 2);
}

/* --- waiting ------------------------------------------------------------------------------- */

/* Whatever the status is: reading or writing tells more. */
static void on_ready(uv_poll_t *poll, int status, int events) {
    struct pour *pour = container_of(poll, struct pour, poll);
    struct wait *wait = pour->wait;
    (void)status, (void)events;
    uv_poll_stop(poll);
    pour->wait = NULL;
    if (wait)
        wait_wake(wait, 0);
}

static void detach(void *arg) {
    struct pour *pour = arg;
    pour->wait = NULL;
    uv_poll_stop(&pour->poll);
}

static int park_descriptor(lua_State *L, struct pour *pour, int events, lua_KFunction k) {
    struct wait *wait = wait_begin(L);
    int status = pour->polls ? uv_poll_start(&pour->poll, events, on_ready) : UV_EAGAIN;
    if (status != 0)
        return push_failure(L, status, "descriptor %d", pour->given);
    pour->wait = wait;
    return wait_park(L, wait, -1, detach, pour, k, 0);
}

static int push_moved(lua_State *L, const struct pour *pour) {
    lua_pushinteger(L, (lua_Integer)pour->moved);
    return 1;
}

/* --- from a descriptor to the pipe --------------------------------------------------------- */

static int send_more(lua_State *L, int status, lua_KContext ctx);

static int send_again(lua_State *L, int status, lua_KContext ctx) {
    (void)status;
    return send_more(L, 0, ctx);
}

static int send_more(lua_State *L, int status, lua_KContext ctx) {
    struct box *box = lua_touserdata(L, 1);
    struct pour *pour = pour_of(L);
    for (int i = 0; i < AT_ONCE; i++) {
        if (!box->pipe)
            return push_closed(L);
        if (status != 0)
            return push_pipe_failure(L, box, status, "sending to");
        if (box->sender || pipe_queued(box->pipe) > PIPE_HIGH_WATER)
            return park_writer(L, box, -1, send_more);
        ssize_t n = read(pour->fd, pour->buffer, BUFFER_SIZE);
        if (n == 0)
            return push_moved(L, pour);
        if (n > 0) {
            status = pipe_write(box->pipe, pour->buffer, (size_t)n);
            if (status != 0)
                return push_pipe_failure(L, box, status, "sending to");
            pour->moved += (uint64_t)n;
        } else if (errno == EAGAIN) {
            return park_descriptor(L, pour, UV_READABLE, send_again);
        } else if (errno != EINTR) {
            return push_failure(L, -errno, "reading descriptor %d", pour->given);
        }
    }
    return wait_park(L, wait_begin(L), 0, NULL, NULL, send_again, ctx);
}

int send_from(lua_State *L) {
    struct pour *pour;
    int returned = begin(L, &pour);
    return returned != 0 ? returned : send_more(L, 0, 0);
}

/* --- from the pipe to a descriptor --------------------------------------------------------- */

static int recv_more(lua_State *L, int status, lua_KContext ctx);

static int recv_again(lua_State *L, int status, lua_KContext ctx) {
    (void)status;
    return recv_more(L, 0, ctx);
}

/* What lines() has taken and not given comes first. */
static void take_held(lua_State *L, struct box *box, struct pour *pour) {
    push_held(L, box, BUFFER_SIZE);
    const char *bytes = lua_tolstring(L, -1, &pour->end);
    memcpy(pour->buffer, bytes, pour->end);
    lua_settop(L, 2);
}

static int recv_more(lua_State *L, int status, lua_KContext ctx) {
    struct box *box = lua_touserdata(L, 1);
    struct pour *pour = pour_of(L);
    for (int i = 0; i < AT_ONCE;) {
        if (pour->start < pour->end) {
            ssize_t n = write(pour->fd, pour->buffer + pour->start, pour->end - pour->start);
            if (n >= 0) {
                pour->start += (size_t)n;
                pour->moved += (uint64_t)n;
            } else if (errno == EAGAIN) {
                return park_descriptor(L, pour, UV_WRITABLE, recv_again);
            } else if (errno != EINTR) {
                return push_failure(L, -errno, "writing descriptor %d", pour->given);
            }
            continue;
        }
        if (!box->pipe)
            return push_closed(L);
        if (status != 0)
            return push_pipe_failure(L, box, status, "receiving from");
        pour->start = pour->end = 0;
        if (box->held > 0) {
            take_held(L, box, pour);
            continue;
        }
        ssize_t n = pipe_read(box->pipe, pour->buffer, BUFFER_SIZE);
        if (n == UV_EOF)
            return push_moved(L, pour);
        if (n == UV_EAGAIN)
            return park_reader(L, box, -1, recv_more);
        if (n < 0)
            return push_pipe_failure(L, box, (int)n, "receiving from");
        pour->end = (size_t)n;
        i++;
    }
    return wait_park(L, wait_begin(L), 0, NULL, NULL, recv_again, ctx);
}

int recv_to(lua_State *L) {
    struct box *box = check_pipe(L);
    struct pour *pour;
    if (box->reader || box->pouring)
        return push_reader_busy(L);
    int returned = begin(L, &pour);
    if (returned != 0)
        return returned;
    pour->of = box;
    box->pouring = true;
    return recv_more(L, 0, 0);
}

void open_pour(lua_State *L) {
    module_type(L, POUR_TYPE, (const luaL_Reg[]){{NULL, NULL}},
                (const luaL_Reg[]){{"__gc", pour_close}, {"__close", pour_close}, {NULL, NULL}});
}
