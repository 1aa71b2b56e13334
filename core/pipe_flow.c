#include "core/err.h"
#include "core/pipe_inner.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define SAVE_SIZE                                                                                  \
    (16 * 1024) /* taken at once when nobody reads; with this much saved, reading stops */
/* What is held back at most until a callback returns. What leaves at once wakes the peer once, and
 * loopback's segments (64 KiB) are full ones. */
#define CORK_SIZE (256 * 1024)
#define WRITE_BUFFERS 8
#define CLIENT_HELLO 0x16 /* RFC 8446, 5.1: a record of handshake messages */

const uint8_t pipe_preface_magic[2] = {'P', 1};
const uint8_t pipe_commit_magic[5] = {'p', '2', 'p', 'd', 1};

static void pump(struct pipe *pipe);

/* ---- out ---- */

static void on_kick(uv_timer_t *timer) {
    pump(container_of(timer, struct pipe, timer));
}

/* Callbacks never come inside a call: this lets one come soon after it. */
void pipe_kick(struct pipe *pipe) {
    if (pipe->state != PIPE_CLOSING)
        uv_timer_start(&pipe->timer, on_kick, 0, 0);
}

static void out_failed(struct pipe *pipe, int status) {
    pipe->out_error = status;
    pipe->writing = 0;
    outbox_clear(&pipe->out);
    if (pipe->state == PIPE_CLOSING)
        pipe_destroy(pipe);
    else
        pipe_kick(pipe);
}

static void on_written(uv_write_t *request, int status) {
    struct pipe *pipe = container_of(request, struct pipe, request.write);
    if (pipe->destroyed)
        return;
    size_t written = pipe->writing;
    pipe->writing = 0;
    if (status != 0) {
        out_failed(pipe, status);
        return;
    }
    outbox_consume(&pipe->out, written);
    pipe_flush(pipe);
    pump(pipe);
}

/* Gives the socket what lies in the outbox; libuv waits for it to take the rest. */
void pipe_flush(struct pipe *pipe) {
    uv_buf_t buffers[WRITE_BUFFERS];
    uv_stream_t *stream = (uv_stream_t *)&pipe->tcp;
    while (pipe->writing == 0 && pipe->out.length > 0 && !pipe->destroyed) {
        unsigned count = outbox_peek(&pipe->out, buffers, WRITE_BUFFERS);
        int n = uv_try_write(stream, buffers, count);
        if (n > 0) {
            outbox_consume(&pipe->out, (size_t)n);
            continue;
        }
        if (n == UV_EAGAIN) {
            for (unsigned i = 0; i < count; i++)
                pipe->writing += buffers[i].len;
            n = uv_write(&pipe->request.write, stream, buffers, count, on_written);
        }
        if (n != 0)
            out_failed(pipe, n);
    }
    if (pipe->finishing && !pipe->finished && pipe->out.length == 0 && !pipe->destroyed) {
        pipe->finished = true;
        if (!pipe->relayed)
            shutdown(pipe_descriptor(pipe), SHUT_WR);
        pipe_linger_check(pipe);
    }
}

void pipe_flush_soon(struct pipe *pipe) {
    if (pipe->corked == 0 || pipe->out.length >= CORK_SIZE)
        pipe_flush(pipe);
}

/* ---- in ---- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer) {
    struct pipe *pipe = container_of(handle, struct pipe, tcp);
    (void)suggested;
    *buffer = uv_buf_init(pipe_workspace(), pipe->readable.call ? PIPE_READ_SIZE : SAVE_SIZE);
}

static void reading_stop(struct pipe *pipe) {
    if (pipe->reading)
        uv_read_stop((uv_stream_t *)&pipe->tcp);
    pipe->reading = false;
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer) {
    struct pipe *pipe = container_of(stream, struct pipe, tcp);
    if (n == 0)
        return;
    if (n < 0) {
        pipe->end = (int)n;
        pipe->tls.ended = true;
        reading_stop(pipe);
        pipe_linger_check(pipe);
    } else if (pipe->state == PIPE_CLOSING) {
        pipe->heard = true;
        if (pipe->relayed) {
            tls_feed(&pipe->tls, (const uint8_t *)buffer->base, (size_t)n);
            pipe_discard(pipe);
        }
        return;
    } else if (pipe->tls.in_length == 0) {
        tls_feed(&pipe->tls, (const uint8_t *)buffer->base, (size_t)n);
    } else {
        size_t kept = pipe->tls.in_length;
        uint8_t *both = malloc(kept + (size_t)n);
        if (!both) {
            pipe->end = UV_ENOMEM;
            pipe->tls.ended = true;
            reading_stop(pipe);
        } else {
            memcpy(both, pipe->tls.in, kept);
            memcpy(both + kept, buffer->base, (size_t)n);
            free(pipe->saved);
            pipe->saved = both;
            tls_feed(&pipe->tls, both, kept + (size_t)n);
        }
    }
    pump(pipe);
}

int pipe_reading_start(struct pipe *pipe) {
    if (pipe->reading || pipe->end != 0)
        return 0;
    int status = uv_read_start((uv_stream_t *)&pipe->tcp, on_alloc, on_read);
    pipe->reading = status == 0;
    return status;
}

/* Nothing that was not consumed stays in the shared buffer, and nothing that was consumed stays at
 * all. */
void pipe_settle(struct pipe *pipe) {
    size_t left = pipe->tls.in_length;
    if (left == 0) {
        free(pipe->saved);
        pipe->saved = NULL;
        return;
    }
    if (!pipe->saved) {
        pipe->saved = malloc(left);
        if (!pipe->saved) {
            tls_feed(&pipe->tls, NULL, 0);
            pipe->end = UV_ENOMEM;
            pipe->tls.ended = true;
            reading_stop(pipe);
            return;
        }
        memcpy(pipe->saved, pipe->tls.in, left);
        tls_feed(&pipe->tls, pipe->saved, left);
    }
    if (left >= SAVE_SIZE)
        reading_stop(pipe);
}

/* ---- progress ---- */

void pipe_failed(struct pipe *pipe, int status) {
    if (pipe->end != 0 && pipe->end != UV_EOF && status == UV_ECONNRESET)
        status = pipe->end;
    pipe->state = PIPE_FAILED;
    pipe->error = status;
    notice_fire(&pipe->step, status);
}

static void greet(struct pipe *pipe) {
    struct tls *tls = &pipe->tls;
    if (tls->in_length > 0 && tls->in[0] == CLIENT_HELLO) {
        pipe->state = PIPE_CONNECTED;
        notice_fire(&pipe->step, PIPE_HELLO);
        return;
    }
    size_t n =
        tls->in_length < sizeof pipe_preface_magic ? tls->in_length : sizeof pipe_preface_magic;
    if (n > 0 && memcmp(tls->in, pipe_preface_magic, n) != 0) {
        pipe_failed(pipe, ERR_EFORMAT);
    } else if (tls->in_length >= PREFACE_SIZE) {
        memcpy(pipe->token, tls->in + sizeof pipe_preface_magic, PIPE_TOKEN_SIZE);
        tls_feed(tls, tls->in + PREFACE_SIZE, tls->in_length - PREFACE_SIZE);
        pipe->state = PIPE_CONNECTED;
        notice_fire(&pipe->step, PIPE_PREFACE);
    } else if (pipe->end != 0) {
        pipe_failed(pipe, UV_ECONNRESET);
    }
}

/* Waits for the commit; a peer that says goodbye instead of it has kept another pipe. */
static void secure_server(struct pipe *pipe) {
    ssize_t n = tls_read(&pipe->tls, pipe->commit + pipe->said, COMMIT_SIZE - pipe->said);
    if (n > 0)
        pipe->said += (unsigned)n;
    if (n < 0 && n != UV_EAGAIN)
        pipe_failed(pipe, n == UV_EOF ? ERR_ELOST : (int)n);
    else if (pipe->said < COMMIT_SIZE)
        return;
    else if (memcmp(pipe->commit, pipe_commit_magic, sizeof pipe_commit_magic) != 0)
        pipe_failed(pipe, ERR_EFORMAT);
    else {
        pipe->state = PIPE_OPEN;
        notice_fire(&pipe->step, 0);
    }
}

static void secure(struct pipe *pipe) {
    if (!pipe->tls.finished) {
        int status = tls_handshake(&pipe->tls);
        if (status == UV_EAGAIN)
            return;
        if (status != 0) {
            pipe_failed(pipe, status);
            return;
        }
    }
    if (pipe->server) {
        secure_server(pipe);
    } else {
        pipe->state = PIPE_OPEN;
        notice_fire(&pipe->step, 0);
    }
}

bool pipe_has_something(const struct pipe *pipe) {
    return pipe->tls.in_length > 0 || pipe->tls.ended || tls_pending(&pipe->tls);
}

/* Does all that can be done with what has arrived and left, and calls back whom it concerns. */
static void pump(struct pipe *pipe) {
    pipe->corked++;
    if (pipe->state == PIPE_GREETING)
        greet(pipe);
    if (pipe->state == PIPE_SECURING)
        secure(pipe);
    if (pipe->state == PIPE_OPEN && pipe->readable.call && pipe_has_something(pipe))
        notice_fire(&pipe->readable, 0);
    if (pipe->drained.call && (pipe->out_error != 0 || pipe->out.length < PIPE_LOW_WATER))
        notice_fire(&pipe->drained, pipe->out_error);
    if (pipe->shut.call && (pipe->out_error != 0 || pipe->finished))
        notice_fire(&pipe->shut, pipe->out_error);
    pipe->corked--;
    if (pipe->destroyed)
        return;
    pipe_flush(pipe);
    if (pipe->destroyed)
        return;
    if (pipe->drained.call &&
        pipe->out.length < PIPE_LOW_WATER) /* what a callback held back left */
        pipe_kick(pipe);
    pipe_settle(pipe);
}
