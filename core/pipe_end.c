#include "core/pipe_inner.h"

#include <linux/sockios.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#define LINGER_STEP_MS 250

/* The buffer that all pipes of a thread read into. What is not consumed at once is copied out. */
struct workspace {
    unsigned pipes;
    uint8_t bytes[PIPE_READ_SIZE];
};
static _Thread_local struct workspace *workspace;

/* libuv writes to sockets without MSG_NOSIGNAL: unless somebody has thought of SIGPIPE, a peer that
 * goes while we write would end the process. */
static void survive_broken_pipes(void) {
    struct sigaction action;
    if (sigaction(SIGPIPE, NULL, &action) == 0 && !(action.sa_flags & SA_SIGINFO) &&
        action.sa_handler == SIG_DFL)
        signal(SIGPIPE, SIG_IGN);
}

int pipe_workspace_keep(void) {
    if (!workspace) {
        survive_broken_pipes();
        workspace = malloc(sizeof *workspace);
        if (!workspace)
            return UV_ENOMEM;
        workspace->pipes = 0;
    }
    workspace->pipes++;
    return 0;
}

void pipe_workspace_drop(void) {
    if (--workspace->pipes > 0)
        return;
    free(workspace);
    workspace = NULL;
    outbox_trim();
}

char *pipe_workspace(void) {
    return (char *)workspace->bytes;
}

static void on_closed(uv_handle_t *handle, struct pipe *pipe) {
    (void)handle;
    if (--pipe->handles > 0)
        return;
    tls_end(&pipe->tls);
    outbox_clear(&pipe->out);
    free(pipe->saved);
    tls_identity_drop(pipe->identity);
    pipe_workspace_drop();
    struct notice closed = pipe->closed;
    OPENSSL_cleanse(pipe->token, sizeof pipe->token);
    free(pipe);
    notice_fire(&closed, 0);
}

static void on_tcp_closed(uv_handle_t *handle) {
    on_closed(handle, container_of(handle, struct pipe, tcp));
}

static void on_timer_closed(uv_handle_t *handle) {
    on_closed(handle, container_of(handle, struct pipe, timer));
}

void pipe_destroy(struct pipe *pipe) {
    if (pipe->destroyed)
        return;
    pipe->destroyed = true;
    uv_close((uv_handle_t *)&pipe->tcp, on_tcp_closed);
    uv_close((uv_handle_t *)&pipe->timer, on_timer_closed);
}

int pipe_descriptor(const struct pipe *pipe) {
    uv_os_fd_t fd;
    return uv_fileno((const uv_handle_t *)&pipe->tcp, &fd) == 0 ? fd : -1;
}

/* Whether a lingering pipe has nothing more to wait for: all is said, and the peer has closed too.
 */
void pipe_linger_check(struct pipe *pipe) {
    if (pipe->state == PIPE_CLOSING && (pipe->out_error != 0 || (pipe->finished && pipe->end != 0)))
        pipe_destroy(pipe);
}

void pipe_discard(struct pipe *pipe) {
    uint8_t bytes[4096];
    while (tls_read(&pipe->tls, bytes, sizeof bytes) > 0)
        ;
}

/* Whether a relay has passed on all that was said, as far as can be known: the peer has answered
 * our goodbye. Who answers leaves the end to the other one. */
static bool is_answered(const struct pipe *pipe) {
    return !pipe->last && pipe->tls.over != 0;
}

/* A peer that has acknowledged everything and is silent needs no more time. One that goes on
 * sending would answer a close with a reset, and some systems throw away what was not read yet when
 * that comes; it gets the full time. */
static void on_linger(uv_timer_t *timer) {
    struct pipe *pipe = container_of(timer, struct pipe, timer);
    int unacknowledged = 0;
    pipe->lingered_ms += LINGER_STEP_MS;
    bool delivered = pipe->finished &&
                     ioctl(pipe_descriptor(pipe), SIOCOUTQ, &unacknowledged) == 0 &&
                     unacknowledged == 0 && (!pipe->relayed || is_answered(pipe));
    if (pipe->lingered_ms >= PIPE_LINGER_MS || (delivered && !pipe->heard))
        pipe_destroy(pipe);
    pipe->heard = false;
}

/* From here on only `closed` is called; the pipe is freed when both handles are closed. */
static bool leave(struct pipe *pipe, pipe_cb closed, void *arg) {
    if (closed && !pipe->closed.call)
        pipe->closed = (struct notice){closed, arg};
    if (pipe->state == PIPE_CLOSING)
        return false;
    pipe->state = PIPE_CLOSING;
    pipe->step = pipe->readable = pipe->drained = pipe->shut = (struct notice){0};
    uv_timer_stop(&pipe->timer);
    return true;
}

void pipe_close(struct pipe *pipe, pipe_cb closed, void *arg) {
    bool spoken = pipe->tls.ssl && pipe->out_error == 0 && (pipe->end == 0 || pipe->end == UV_EOF);
    if (!leave(pipe, closed, arg))
        return;
    if (!spoken) {
        pipe_destroy(pipe);
        return;
    }
    if (!pipe->finishing)
        pipe->last = pipe->tls.over != 0;
    tls_goodbye(&pipe->tls);
    pipe->finishing = true;
    if (pipe->relayed)
        pipe_discard(pipe);
    else
        tls_feed(&pipe->tls, NULL, 0);
    pipe_flush(pipe);
    pipe_linger_check(pipe);
    if (pipe->destroyed)
        return;
    uv_timer_start(&pipe->timer, on_linger, LINGER_STEP_MS, LINGER_STEP_MS);
    if (pipe_reading_start(pipe) != 0)
        pipe_destroy(pipe);
}

void pipe_abort(struct pipe *pipe, pipe_cb closed, void *arg) {
    leave(pipe, closed, arg);
    pipe_destroy(pipe);
}
