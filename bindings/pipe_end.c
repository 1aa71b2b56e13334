#include "bindings/pipe_inner.h"

#include "bindings/fail.h"
#include "core/err.h"

#include <stdlib.h>

/* Pipes that were closed and still deliver what they had accepted. When the Lua state ends they are
 * ended with it. */
struct lingering {
    struct lingering *next, **link;
    struct pipe *pipe;
    lua_State *main;
    int kept; /* what is closed then: a reference in the registry */
};
static _Thread_local struct lingering *lingering;

/* The pipe went through it, and does so no longer. */
static void let_go(lua_State *L, int kept) {
    if (kept == LUA_NOREF || !lua_checkstack(L, 3))
        return;
    lua_rawgeti(L, LUA_REGISTRYINDEX, kept);
    luaL_unref(L, LUA_REGISTRYINDEX, kept);
    lua_getfield(L, -1, "close");
    lua_insert(L, -2);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK)
        lua_pop(L, 1);
}

static void delivered(void *arg, int status) {
    struct lingering *one = arg;
    (void)status;
    let_go(one->main, one->kept);
    *one->link = one->next;
    if (one->next)
        one->next->link = one->link;
    free(one);
}

void close_box(struct box *box) {
    struct pipe *pipe = box->pipe;
    if (!pipe)
        return;
    box->pipe = NULL;
    struct lingering *one = malloc(sizeof *one);
    if (one) {
        *one = (struct lingering){lingering, &lingering, pipe, box->main, box->kept};
        box->kept = LUA_NOREF;
        if (lingering)
            lingering->link = &one->next;
        lingering = one;
        pipe_close(pipe, delivered, one);
    } else {
        pipe_abort(pipe, NULL, NULL);
        let_go(box->main, box->kept);
        box->kept = LUA_NOREF;
    }
    struct wait *waits[] = {box->opener, box->reader, box->sender, box->shutter};
    box->opener = box->reader = box->sender = box->shutter = NULL;
    for (size_t i = 0; i < sizeof waits / sizeof waits[0]; i++)
        if (waits[i])
            wait_post(waits[i], ERR_ECLOSED);
    for (struct wait *wait; (wait = wait_list_first(&box->writers));) {
        wait_list_remove(wait);
        wait_post(wait, ERR_ECLOSED);
    }
}

/* Whoever lingers when the Lua state ends is ended with it. */
void end_lingering(lua_State *L) {
    while (lingering) {
        struct pipe *pipe = lingering->pipe;
        pipe_abort(pipe, NULL, NULL);
        while (lingering && lingering->pipe == pipe)
            uv_run(wait_loop(L), UV_RUN_NOWAIT);
    }
}

/* keep(pipe, thing): the thing, through which the pipe goes, is closed (thing:close()) when the
 * pipe has delivered what it accepted */
int keep_with(lua_State *L) {
    struct box *box = check_pipe(L);
    luaL_checkany(L, 2);
    luaL_argcheck(L, box->kept == LUA_NOREF, 1, "something is kept already");
    lua_settop(L, 2);
    int kept = luaL_ref(L, LUA_REGISTRYINDEX);
    if (box->pipe)
        box->kept = kept;
    else
        let_go(L, kept);
    return 0;
}

/* --- ending -------------------------------------------------------------------------------- */

static void on_shut(void *arg, int status) {
    struct box *box = arg;
    struct wait *wait = box->shutter;
    box->shutter = NULL;
    if (wait)
        wait_wake(wait, status);
}

static void detach_shutter(void *arg) {
    struct box *box = arg;
    box->shutter = NULL;
    if (box->pipe)
        pipe_on_shutdown(box->pipe, NULL, NULL);
}

static int shut(lua_State *L, int status, lua_KContext ctx) {
    (void)ctx;
    if (status != 0)
        return push_pipe_failure(L, lua_touserdata(L, 1), status, "ending the stream to");
    lua_pushboolean(L, 1);
    return 1;
}

/* pipe:shutdown([timeout]) -> true when all has left; the peer gets EOF, receiving goes on */
int shutdown_pipe(lua_State *L) {
    struct box *box = check_pipe(L);
    double timeout_s = check_timeout(L, 2, -1);
    if (!box->pipe)
        return push_closed(L);
    if (box->shutter)
        return push_refusal(L, UV_EBUSY, "another task ends this stream");
    struct wait *wait = wait_begin(L);
    int status = pipe_shutdown(box->pipe, on_shut, box);
    if (status != 0)
        return shut(L, status, 0);
    box->shutter = wait;
    return wait_park(L, wait, timeout_s, detach_shutter, box, shut, 0);
}

/* pipe:close(); what was sent is still delivered, for a bounded time */
int close_pipe(lua_State *L) {
    close_box(check_pipe(L));
    return 0;
}

/* pipe:abort(): at once; what was sent and has not left is lost */
int abort_pipe(lua_State *L) {
    struct box *box = check_pipe(L);
    struct pipe *pipe = box->pipe;
    close_box(box);
    if (pipe)
        pipe_abort(pipe, NULL, NULL);
    return 0;
}
