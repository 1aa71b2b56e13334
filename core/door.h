/* door: where paho comes in, on loopback.
 *
 * Provides  struct door: it listens, lets one in, and cuts what that one says into MQTT packets
 * Uses      stream, mqtt_frame, libuv
 * Owns      the listening socket until paho is there, and the connection that it made
 *
 * Others on the machine may come in too. paho is recognised by the client ID in its CONNECT, which
 * is random and told to nobody else; whoever sends anything else first is shown out, and nothing of
 * it is passed on. Whoever comes is told CONNACK before it asks: then paho's socket is readable as
 * soon as paho looks at it (see core/paho.h). */
#ifndef CORE_DOOR_H
#define CORE_DOOR_H

#include "core/mqtt_frame.h"

#include <uv.h>

struct door;

struct door_options {
    const char *client_id;
    size_t packet_limit;

    /* On the loop, never from inside a call. After on_lost none comes. */
    void (*on_knock)(struct door *door); /* somebody is there who may be paho */
    void (*on_packet)(struct door *door, const struct mqtt_packet *packet); /* paho's */
    void (*on_lost)(struct door *door);
};

struct door {
    uv_tcp_t listener, local;
    struct door_options options;
    struct mqtt_cutter cutter;
    bool listening, waiting; /* waiting: somebody else is before the door */
    bool inside, leaving;    /* somebody's connection is open, or being closed */
    bool paired;             /* and it is paho's */
    bool over;
    unsigned closes;
    void (*closed)(struct door *door);
};

/* Listens on 127.0.0.1:*port. 0 or what the system said; it must be closed either way. */
int door_open(struct door *door, uv_loop_t *loop, const struct door_options *options,
              uint16_t *port);

/* Tells paho something. 0, UV_ENOTCONN, or what the system said. */
int door_send(struct door *door, const void *bytes, size_t length);

/* Bytes that the system did not take yet. */
size_t door_queued(const struct door *door);

/* Shows out who is inside and has not said who it is, if somebody else waits. */
void door_hurry(struct door *door);

void door_close(struct door *door, void (*closed)(struct door *door));

#endif
