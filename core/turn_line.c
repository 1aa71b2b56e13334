#include "core/err.h"
#include "core/turn_inner.h"

#include <stdlib.h>
#include <string.h>

/* Without TLS, what follows the last message on a line is read by somebody else: no read takes more
 * than belongs to the message. */
static size_t missing(const struct turn_line *line) {
    return (line->size ? line->size : STUN_HEADER_SIZE) - line->filled;
}

static void fail(struct turn_line *line, int status) {
    uplink_pause(&line->uplink);
    line->events->down(line->arg, status);
}

static void on_up(struct uplink *uplink) {
    struct turn_line *line = container_of(uplink, struct turn_line, uplink);
    line->events->up(line->arg);
}

static void on_down(struct uplink *uplink, int status) {
    struct turn_line *line = container_of(uplink, struct turn_line, uplink);
    line->events->down(line->arg, status == UV_EOF && !line->raw ? UV_ECONNRESET : status);
}

/* Takes what belongs to the message, and returns how much it was; 0 when it is none. */
static size_t fill(struct turn_line *line, const uint8_t *bytes, size_t length) {
    size_t take = missing(line) < length ? missing(line) : length;
    memcpy(line->input + line->filled, bytes, take);
    line->filled += take;
    if (line->size == 0 && line->filled == STUN_HEADER_SIZE) {
        line->size = stun_msg_length(line->input);
        if (line->size == 0 || line->size > sizeof line->input)
            return 0;
    }
    return take;
}

static void on_data(struct uplink *uplink, const uint8_t *bytes, size_t length) {
    struct turn_line *line = container_of(uplink, struct turn_line, uplink);
    while (length > 0 && !line->closed) {
        if (line->raw) {
            line->events->bytes(line->arg, bytes, length);
            return;
        }
        size_t taken = fill(line, bytes, length);
        if (taken == 0) {
            fail(line, UV_EPROTO);
            return;
        }
        bytes += taken;
        length -= taken;
        if (line->size != 0 && line->filled == line->size) {
            size_t size = line->size;
            line->filled = line->size = 0;
            line->events->message(line->arg, line->input, size);
        }
        uplink->appetite = line->raw ? 0 : missing(line);
    }
}

int turn_line_open(uv_loop_t *loop, const struct turn_place *place,
                   const struct turn_line_events *events, void *arg, struct turn_line **out) {
    struct sockaddr_storage remote, local;
    struct turn_line *line = calloc(1, sizeof *line);
    if (!line)
        return UV_ENOMEM;
    int status = uplink_open(&line->uplink, loop,
                             &(struct uplink_options){
                                 .tls = place->tls,
                                 .host = place->host,
                                 .ca_file = *place->ca_file ? place->ca_file : NULL,
                                 .on_up = on_up,
                                 .on_data = on_data,
                                 .on_down = on_down,
                             });
    if (status != 0) {
        free(line);
        return status;
    }
    line->events = events;
    line->arg = arg;
    line->uplink.appetite = STUN_HEADER_SIZE;
    ip_to_sockaddr(&place->server.ip, place->server.port, &remote);
    if (place->local.family != 0) {
        ip_to_sockaddr(&place->local, 0, &local);
        status = uv_tcp_bind(&line->uplink.tcp, (struct sockaddr *)&local, 0);
    }
    if (status == 0)
        status = uplink_connect(&line->uplink, (struct sockaddr *)&remote);
    if (status != 0) {
        turn_line_close(line);
        return status;
    }
    uv_unref((uv_handle_t *)&line->uplink.tcp); /* what waits for it keeps the loop alive */
    *out = line;
    return 0;
}

void turn_line_expect(struct turn_line *line, const struct turn_line_events *events, void *arg) {
    line->events = events;
    line->arg = arg;
}

int turn_line_send(struct turn_line *line, const void *bytes, size_t length) {
    return uplink_write(&line->uplink, bytes, length);
}

static void on_closed(struct uplink *uplink) {
    free(container_of(uplink, struct turn_line, uplink));
}

void turn_line_close(struct turn_line *line) {
    line->closed = true;
    uplink_close(&line->uplink, on_closed);
}
