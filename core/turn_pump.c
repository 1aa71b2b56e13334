/* Bytes of a peer between a line with TLS and one end of a pair of sockets, whose other end is used
 * as if it were the connection itself. Where one side takes no more, the other is not read. */
#include "core/stream.h"
#include "core/turn_inner.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK 65536
#define QUEUE_MAX 131072 /* bytes that wait for one side, before the other is not read */
#define LINGER_MS 10000  /* of silence, after our side has said all, before it is cut off */

struct pump {
    struct pump *next, **link;
    struct turn_line *line; /* NULL once it is closed */
    uv_pipe_t inner;
    uv_timer_t linger;
    uv_write_t outer_drained, inner_drained; /* of no bytes: done when those before it are */
    uv_shutdown_t shut;
    bool outer_waits, inner_waits;
    bool finished; /* our side has said all */
    bool over;     /* the server's side has said all: it ends when that is delivered */
    unsigned handles;
};

static _Thread_local struct pump *pumps;

static void on_closed(struct pump *pump) {
    if (--pump->handles == 0)
        free(pump);
}

static void on_inner_closed(uv_handle_t *handle) {
    on_closed(container_of(handle, struct pump, inner));
}

static void on_linger_closed(uv_handle_t *handle) {
    on_closed(container_of(handle, struct pump, linger));
}

static void end(struct pump *pump) {
    if (!pump->link)
        return;
    *pump->link = pump->next;
    if (pump->next)
        pump->next->link = pump->link;
    pump->link = NULL;
    if (pump->line)
        turn_line_close(pump->line);
    pump->line = NULL;
    uv_close((uv_handle_t *)&pump->inner, on_inner_closed);
    uv_close((uv_handle_t *)&pump->linger, on_linger_closed);
}

void turn_pumps_end(void) {
    while (pumps)
        end(pumps);
}

static void on_linger(uv_timer_t *timer) {
    struct pump *pump = container_of(timer, struct pump, linger);
    if (pump->over || uv_stream_get_write_queue_size((uv_stream_t *)&pump->line->uplink.tcp) == 0)
        end(pump);
}

/* --- from the server ----------------------------------------------------------------------- */

static void on_inner_drained(uv_write_t *request, int status) {
    struct pump *pump = container_of(request, struct pump, inner_drained);
    pump->inner_waits = false;
    if (!pump->link)
        return;
    if (status != 0)
        end(pump);
    else if (pump->line && !pump->over)
        uplink_resume(&pump->line->uplink);
}

static void on_bytes(void *arg, const uint8_t *bytes, size_t length) {
    struct pump *pump = arg;
    uv_stream_t *inner = (uv_stream_t *)&pump->inner;
    if (!pump->link)
        return;
    if (stream_send(inner, bytes, length) != 0) {
        end(pump);
        return;
    }
    if (pump->finished)
        uv_timer_again(&pump->linger);
    if (pump->inner_waits || uv_stream_get_write_queue_size(inner) < QUEUE_MAX)
        return;
    uplink_pause(&pump->line->uplink);
    pump->inner_waits = true;
    uv_buf_t nothing = uv_buf_init(NULL, 0);
    if (uv_write(&pump->inner_drained, inner, &nothing, 1, on_inner_drained) != 0)
        end(pump);
}

static void on_shut(uv_shutdown_t *request, int status) {
    (void)status;
    end(container_of(request, struct pump, shut));
}

/* Relays know no half-closed connections: when the server's side ends, all does, once it is
 * delivered. Ours ends the other way, too, and takes what the peer has not read yet; so when we
 * have said all, it is the peer that ends it, or silence. */
static void on_down(void *arg, int status) {
    struct pump *pump = arg;
    (void)status; /* a reset, too, may come right behind what was sent */
    pump->over = true;
    if (uv_shutdown(&pump->shut, (uv_stream_t *)&pump->inner, on_shut) != 0)
        end(pump);
}

/* --- to the server ------------------------------------------------------------------------- */

static void on_inner_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer) {
    (void)handle, (void)suggested;
    *buffer = uv_buf_init(malloc(CHUNK), CHUNK); /* for as long as the callback takes */
    if (!buffer->base)
        buffer->len = 0;
}

static void on_inner_read(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer);

static void on_outer_drained(uv_write_t *request, int status) {
    struct pump *pump = container_of(request, struct pump, outer_drained);
    pump->outer_waits = false;
    if (pump->link && status != 0)
        end(pump);
    else if (pump->link && !pump->over && !pump->finished)
        uv_read_start((uv_stream_t *)&pump->inner, on_inner_alloc, on_inner_read);
    on_closed(pump);
}

static void pass(struct pump *pump, const char *bytes, ssize_t length) {
    if (length == UV_EOF && !pump->finished) {
        pump->finished = true;
        uv_timer_start(&pump->linger, on_linger, LINGER_MS, LINGER_MS);
        uv_unref((uv_handle_t *)&pump->linger);
        return;
    }
    if (length > 0 && pump->over)
        return; /* nobody takes it any more */
    if (length < 0 || (length > 0 && turn_line_send(pump->line, bytes, (size_t)length) != 0)) {
        end(pump);
        return;
    }
    uv_stream_t *outer = (uv_stream_t *)&pump->line->uplink.tcp;
    if (pump->outer_waits || uv_stream_get_write_queue_size(outer) < QUEUE_MAX)
        return;
    uv_read_stop((uv_stream_t *)&pump->inner);
    pump->outer_waits = true;
    pump->handles++; /* the write is the line's, which is closed after the pump */
    uv_buf_t nothing = uv_buf_init(NULL, 0);
    if (uv_write(&pump->outer_drained, outer, &nothing, 1, on_outer_drained) == 0)
        return;
    pump->handles--;
    end(pump);
}

static void on_inner_read(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer) {
    pass(container_of(stream, struct pump, inner), buffer->base, length);
    free(buffer->base);
}

/* --- both ---------------------------------------------------------------------------------- */

static void on_up(void *arg) {
    (void)arg;
}

static void on_message(void *arg, const uint8_t *bytes, size_t length) {
    (void)arg, (void)bytes, (void)length;
}

int turn_pump_start(uv_loop_t *loop, struct turn_line *line, int *fd) {
    static const struct turn_line_events events = {on_up, on_message, on_bytes, on_down};
    int ends[2];
    struct pump *pump = calloc(1, sizeof *pump);
    if (!pump)
        return UV_ENOMEM;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) {
        free(pump);
        return uv_translate_sys_error(errno);
    }
    uv_pipe_init(loop, &pump->inner, 0);
    uv_timer_init(loop, &pump->linger);
    pump->handles = 2;
    pump->next = pumps;
    pump->link = &pumps;
    pumps = pump;
    if (pump->next)
        pump->next->link = &pump->next;
    int status = uv_pipe_open(&pump->inner, ends[0]);
    if (status == 0)
        status = uv_read_start((uv_stream_t *)&pump->inner, on_inner_alloc, on_inner_read);
    else
        close(ends[0]);
    if (status != 0) {
        close(ends[1]);
        end(pump);
        return status;
    }
    uv_unref((uv_handle_t *)&pump->inner); /* who has the other end keeps the loop alive */
    line->raw = true;
    pump->line = line;
    turn_line_expect(line, &events, pump);
    *fd = ends[1];
    return 0;
}
