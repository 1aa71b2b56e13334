#include "core/err.h"
#include "core/pipe_inner.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define WRITE_SIZE (256 * 1024) /* plaintext sealed before the socket gets it */

int pipe_new(uv_loop_t *loop, struct tls_identity *identity, struct pipe **out) {
    struct pipe *pipe = calloc(1, sizeof *pipe);
    if (!pipe || pipe_workspace_keep() != 0) {
        free(pipe);
        return UV_ENOMEM;
    }
    uv_tcp_init(loop, &pipe->tcp); /* without a socket neither of the two can fail */
    uv_timer_init(loop, &pipe->timer);
    pipe->handles = 2;
    pipe->identity = tls_identity_keep(identity);
    *out = pipe;
    return 0;
}

static void tune(struct pipe *pipe) {
    uv_tcp_nodelay(&pipe->tcp, 1);
    uv_tcp_keepalive(&pipe->tcp, 1, PIPE_KEEPALIVE_S);
}

static void on_connected(uv_connect_t *request, int status) {
    struct pipe *pipe = container_of(request, struct pipe, request.connect);
    if (pipe->state != PIPE_DIALING)
        return;
    pipe->corked++;
    if (status == 0) {
        tune(pipe);
        pipe->state = PIPE_CONNECTED;
        notice_fire(&pipe->step, 0);
    } else {
        pipe_failed(pipe, status);
    }
    pipe->corked--;
    pipe_flush(pipe);
}

static int local_socket(int family, const struct sockaddr *local) {
    const int on = 1;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || !local)
        return fd < 0 ? -errno : fd;
    socklen_t size = family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    if (local->sa_family == family &&
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0 && bind(fd, local, size) == 0)
        return fd;
    int status = local->sa_family == family ? -errno : UV_EINVAL;
    close(fd);
    return status;
}

int pipe_dial(struct pipe *pipe, const struct sockaddr *remote, const struct sockaddr *local,
              pipe_cb done, void *arg) {
    if (pipe->state != PIPE_NEW)
        return UV_EINVAL;
    int fd = local_socket(remote->sa_family, local);
    if (fd < 0)
        return fd;
    int status = uv_tcp_open(&pipe->tcp, fd);
    if (status != 0) {
        close(fd);
        return status;
    }
    status = uv_tcp_connect(&pipe->request.connect, &pipe->tcp, remote, on_connected);
    if (status != 0) {
        pipe->state = PIPE_FAILED;
        pipe->error = status;
        return status;
    }
    pipe->state = PIPE_DIALING;
    pipe->step = (struct notice){done, arg};
    return 0;
}

int pipe_adopt(struct pipe *pipe, uv_os_sock_t socket) {
    if (pipe->state != PIPE_NEW)
        return UV_EINVAL;
    int status = uv_tcp_open(&pipe->tcp, socket);
    if (status != 0)
        return status;
    tune(pipe);
    pipe->state = PIPE_CONNECTED;
    return 0;
}

int pipe_accept(struct pipe *pipe, uv_stream_t *server) {
    if (pipe->state != PIPE_NEW)
        return UV_EINVAL;
    int status = uv_accept(server, (uv_stream_t *)&pipe->tcp);
    if (status == 0)
        pipe->state = PIPE_CONNECTED;
    return status;
}

int pipe_greet(struct pipe *pipe, pipe_cb done, void *arg) {
    if (pipe->state != PIPE_CONNECTED)
        return UV_EINVAL;
    int status = pipe_reading_start(pipe);
    if (status != 0)
        return status;
    pipe->state = PIPE_GREETING;
    pipe->step = (struct notice){done, arg};
    return 0;
}

const uint8_t *pipe_token(const struct pipe *pipe) {
    return pipe->token;
}

int pipe_secure(struct pipe *pipe, enum tls_role role, const uint8_t *expected,
                const uint8_t *token, pipe_cb done, void *arg) {
    if (pipe->state != PIPE_CONNECTED)
        return UV_EINVAL;
    int status = tls_begin(&pipe->tls, pipe->identity, role, expected, &pipe->out);
    if (status == 0 && token) {
        status = outbox_append(&pipe->out, pipe_preface_magic, sizeof pipe_preface_magic);
        if (status == 0)
            status = outbox_append(&pipe->out, token, PIPE_TOKEN_SIZE);
    }
    if (status == 0 && role == TLS_CLIENT) {
        status = tls_handshake(&pipe->tls);
        if (status == UV_EAGAIN)
            status = 0;
    }
    if (status == 0)
        status = pipe_reading_start(pipe);
    if (status != 0) {
        pipe->state = PIPE_FAILED;
        pipe->error = status;
        return status;
    }
    pipe->server = role == TLS_SERVER;
    pipe->state = PIPE_SECURING;
    pipe->step = (struct notice){done, arg};
    pipe_flush_soon(pipe);
    if (pipe->corked == 0 && (pipe->tls.in_length > 0 || pipe->tls.ended))
        pipe_kick(pipe);
    return 0;
}

/* What keeps an operation of an open pipe from being done, or 0. */
static int refusal(const struct pipe *pipe) {
    if (pipe->state == PIPE_OPEN)
        return 0;
    if (pipe->state == PIPE_FAILED)
        return pipe->error;
    if (pipe->state == PIPE_CLOSING)
        return ERR_ECLOSED;
    return UV_ENOTCONN;
}

/* Seals a part at a time, so that what the socket takes at once never fills the memory. */
static int write_sealed(struct pipe *pipe, const uint8_t *bytes, size_t length) {
    while (length > 0 && pipe->out_error == 0) {
        size_t part = length < WRITE_SIZE ? length : WRITE_SIZE;
        int status = tls_write(&pipe->tls, bytes, part);
        if (status != 0)
            return status;
        pipe_flush_soon(pipe);
        bytes += part;
        length -= part;
    }
    return pipe->out_error;
}

int pipe_commit(struct pipe *pipe, const uint8_t attempt[PIPE_ATTEMPT_SIZE]) {
    int status = refusal(pipe);
    if (status != 0)
        return status;
    if (pipe->server || pipe->said == COMMIT_SIZE)
        return UV_EINVAL;
    memcpy(pipe->commit, pipe_commit_magic, sizeof pipe_commit_magic);
    memcpy(pipe->commit + sizeof pipe_commit_magic, attempt, PIPE_ATTEMPT_SIZE);
    pipe->said = COMMIT_SIZE;
    return write_sealed(pipe, pipe->commit, COMMIT_SIZE);
}

const uint8_t *pipe_attempt(const struct pipe *pipe) {
    return pipe->said == COMMIT_SIZE ? pipe->commit + sizeof pipe_commit_magic : NULL;
}

int pipe_admit(struct pipe *pipe, enum pipe_verdict verdict) {
    int status = refusal(pipe);
    if (status != 0)
        return status;
    if (!pipe->server || pipe->judged == VERDICT_SIZE)
        return UV_EINVAL;
    memcpy(pipe->verdict, pipe_commit_magic, sizeof pipe_commit_magic);
    pipe->verdict[VERDICT_SIZE - 1] = (uint8_t)verdict;
    pipe->judged = VERDICT_SIZE;
    return write_sealed(pipe, pipe->verdict, VERDICT_SIZE);
}

/* What the server made of the commit: 0 when it took the pipe, an error, or UV_EAGAIN. */
static ssize_t read_verdict(struct pipe *pipe) {
    while (pipe->judged < VERDICT_SIZE) {
        ssize_t n = tls_read(&pipe->tls, pipe->verdict + pipe->judged, VERDICT_SIZE - pipe->judged);
        if (n <= 0)
            return n == UV_EOF ? ERR_EDENIED : n;
        pipe->judged += (unsigned)n;
    }
    if (memcmp(pipe->verdict, pipe_commit_magic, sizeof pipe_commit_magic) != 0)
        return ERR_EFORMAT;
    switch (pipe->verdict[VERDICT_SIZE - 1]) {
    case PIPE_ADMITTED:
        return 0;
    case PIPE_BUSY:
        return UV_EBUSY;
    default:
        return ERR_EDENIED;
    }
}

ssize_t pipe_read(struct pipe *pipe, void *buffer, size_t size) {
    int status = refusal(pipe);
    if (status != 0)
        return status;
    if (pipe->server && pipe->judged == 0)
        pipe_admit(pipe, PIPE_ADMITTED);
    ssize_t n = pipe->server ? 0 : read_verdict(pipe);
    if (n == 0)
        n = tls_read(&pipe->tls, buffer, size);
    if (pipe->out.length >
        0) /* an answer of TLS's own, such as to a key update (RFC 8446, 4.6.3) */
        pipe_flush_soon(pipe);
    if (pipe->tls.in_length == 0 && pipe->corked == 0)
        pipe_settle(pipe);
    if (n == UV_EAGAIN) {
        status = pipe_reading_start(pipe);
        return status != 0 ? status : n;
    }
    return n == UV_ECONNRESET && pipe->end != UV_EOF && pipe->end != 0 ? pipe->end : n;
}

void pipe_on_readable(struct pipe *pipe, pipe_cb ready, void *arg) {
    if (pipe->state != PIPE_OPEN)
        return;
    pipe->readable = (struct notice){ready, arg};
    if (ready && pipe_has_something(pipe))
        pipe_kick(pipe);
}

int pipe_write(struct pipe *pipe, const void *bytes, size_t length) {
    int status = refusal(pipe);
    if (status != 0)
        return status;
    if (pipe->said != COMMIT_SIZE)
        return UV_EINVAL;
    if (pipe->finishing)
        return UV_EPIPE;
    if (pipe->server && pipe->judged == 0)
        pipe_admit(pipe, PIPE_ADMITTED);
    return write_sealed(pipe, bytes, length);
}

size_t pipe_queued(const struct pipe *pipe) {
    return pipe->out.length;
}

void pipe_on_drained(struct pipe *pipe, pipe_cb drained, void *arg) {
    if (pipe->state == PIPE_CLOSING)
        return;
    pipe->drained = (struct notice){drained, arg};
    if (drained && (pipe->out_error != 0 || pipe->out.length < PIPE_LOW_WATER))
        pipe_kick(pipe);
}

void pipe_relayed(struct pipe *pipe) {
    pipe->relayed = true;
}

int pipe_shutdown(struct pipe *pipe, pipe_cb done, void *arg) {
    int status = refusal(pipe);
    if (status != 0)
        return status;
    if (pipe->out_error != 0)
        return pipe->out_error;
    if (!pipe->finishing) {
        if (pipe->server && pipe->judged == 0)
            pipe_admit(pipe, PIPE_ADMITTED);
        pipe->last = pipe->tls.over != 0;
        tls_goodbye(&pipe->tls);
        pipe->finishing = true;
        pipe_flush(pipe);
    }
    pipe_on_shutdown(pipe, done, arg);
    return 0;
}

void pipe_on_shutdown(struct pipe *pipe, pipe_cb done, void *arg) {
    if (pipe->state == PIPE_CLOSING)
        return;
    pipe->shut = (struct notice){done, arg};
    if (done && (pipe->out_error != 0 || pipe->finished))
        pipe_kick(pipe);
}

enum pipe_state pipe_state(const struct pipe *pipe) {
    return pipe->state;
}

const uint8_t *pipe_peer(const struct pipe *pipe) {
    return pipe->tls.shown ? pipe->tls.peer : NULL;
}

const char *pipe_reason(const struct pipe *pipe) {
    return pipe->tls.reason;
}

int pipe_remote(const struct pipe *pipe, struct sockaddr_storage *out) {
    int size = sizeof *out;
    return uv_tcp_getpeername(&pipe->tcp, (struct sockaddr *)out, &size);
}

int pipe_local(const struct pipe *pipe, struct sockaddr_storage *out) {
    int size = sizeof *out;
    return uv_tcp_getsockname(&pipe->tcp, (struct sockaddr *)out, &size);
}
