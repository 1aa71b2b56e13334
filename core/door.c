#include "core/door.h"

#include "core/loop.h"
#include "core/stream.h"

#include <string.h>
#include <sys/socket.h>

#define CONNECT_HEADER 10 /* of the body: "MQTT", level, flags, keepalive (MQTT 3.1.1, 3.1.2) */
#define INPUT_SIZE 16384
#define BACKLOG 4

static void on_closed(struct door *door) {
    if (--door->closes == 0 && door->closed) {
        mqtt_cutter_free(&door->cutter);
        door->closed(door);
    }
}

static void on_listener_closed(uv_handle_t *handle) {
    on_closed(container_of(handle, struct door, listener));
}

static void close_listener(struct door *door) {
    if (!door->listening)
        return;
    door->listening = door->waiting = false;
    door->closes++;
    uv_close((uv_handle_t *)&door->listener, on_listener_closed);
}

static void let_in(struct door *door);

static void on_local_closed(uv_handle_t *handle) {
    struct door *door = container_of(handle, struct door, local);
    door->leaving = false;
    mqtt_cutter_free(&door->cutter);
    if (door->waiting)
        let_in(door);
    on_closed(door);
}

static void show_out(struct door *door) {
    if (!door->inside)
        return;
    door->inside = false;
    door->leaving = true;
    door->closes++;
    uv_close((uv_handle_t *)&door->local, on_local_closed);
}

static void lose(struct door *door) {
    if (!door->paired) {
        show_out(door);
    } else if (!door->over) {
        door->over = true;
        door->options.on_lost(door);
    }
}

static bool is_expected(const struct door *door, const struct mqtt_packet *packet) {
    size_t length = strlen(door->options.client_id);
    size_t before = CONNECT_HEADER + 2; /* and the length of the id (MQTT 3.1.1, 1.5.3) */
    return packet->type == MQTT_CONNECT && packet->body_length >= before + length &&
           memcmp(packet->body + before, door->options.client_id, length) == 0;
}

static void on_packet(struct door *door, const struct mqtt_packet *packet) {
    if (!door->paired && !is_expected(door, packet)) {
        show_out(door);
        return;
    }
    door->paired = true;
    close_listener(door);
    door->options.on_packet(door, packet);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer) {
    static _Thread_local char input[INPUT_SIZE]; /* used up before the callback returns */
    (void)handle, (void)suggested;
    *buffer = uv_buf_init(input, sizeof(input));
}

static void on_read(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer) {
    struct door *door = container_of(stream, struct door, local);
    if (length < 0) {
        lose(door);
        return;
    }
    stream_acknowledge(stream); /* paho waits for it */
    const uint8_t *bytes = (const uint8_t *)buffer->base;
    size_t left = (size_t)length;
    struct mqtt_packet packet;
    int cut = 0;
    while (door->inside && !door->over &&
           (cut = mqtt_cut(&door->cutter, &bytes, &left, &packet)) > 0)
        on_packet(door, &packet);
    if (cut < 0)
        lose(door);
}

static void let_in(struct door *door) {
    static const uint8_t connack[] = {MQTT_CONNACK << 4, 2, 0, 0};
    uv_stream_t *local = (uv_stream_t *)&door->local;
    door->waiting = false;
    uv_tcp_init(door->listener.loop, &door->local); /* which cannot fail */
    door->inside = true;
    if (uv_accept((uv_stream_t *)&door->listener, local) || uv_tcp_nodelay(&door->local, 1) ||
        stream_send(local, connack, sizeof(connack)) || uv_read_start(local, on_alloc, on_read)) {
        show_out(door);
        return;
    }
    stream_acknowledge(local);
    door->options.on_knock(door);
}

static void on_connection(uv_stream_t *listener, int status) {
    struct door *door = container_of(listener, struct door, listener);
    if (status)
        return;
    door->waiting = true;
    if (!door->inside && !door->leaving)
        let_in(door);
}

int door_open(struct door *door, uv_loop_t *loop, const struct door_options *options,
              uint16_t *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int size = sizeof(address);
    memset(door, 0, sizeof(*door));
    door->options = *options;
    door->cutter.limit = options->packet_limit;
    uv_tcp_init(loop, &door->listener);
    door->listening = true;
    int status = uv_tcp_bind(&door->listener, (struct sockaddr *)&address, 0);
    if (status == 0)
        status = uv_listen((uv_stream_t *)&door->listener, BACKLOG, on_connection);
    if (status == 0)
        status = uv_tcp_getsockname(&door->listener, (struct sockaddr *)&address, &size);
    *port = ntohs(address.sin_port);
    return status;
}

int door_send(struct door *door, const void *bytes, size_t length) {
    return door->inside ? stream_send((uv_stream_t *)&door->local, bytes, length) : UV_ENOTCONN;
}

size_t door_queued(const struct door *door) {
    return door->inside ? uv_stream_get_write_queue_size((const uv_stream_t *)&door->local) : 0;
}

void door_hurry(struct door *door) {
    if (door->waiting && !door->paired)
        show_out(door);
}

void door_close(struct door *door, void (*closed)(struct door *door)) {
    door->over = true;
    door->closed = closed;
    close_listener(door);
    show_out(door);
}
