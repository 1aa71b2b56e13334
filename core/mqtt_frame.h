/* mqtt_frame: MQTT 3.1.1 control packets, cut from a stream with bounded memory.
 *
 * Provides  struct mqtt_cutter, from bytes to whole packets; a view of a PUBLISH packet
 * Uses      nothing of ours
 * Owns      a packet of which a part has come, if there is one
 * Pure. Packets that are longer than allowed are passed over as they come, and cost no memory.
 *
 *   0             1                       1 + n
 *   +------+------+-----------------------+----------------------------------
 *   | type | flags | remaining length, n   | variable header, payload
 *   +------+------+-----------------------+----------------------------------
 *   4 bits  4 bits  1 to 4 bytes, base 128  (MQTT 3.1.1, 2.2) */
#ifndef CORE_MQTT_FRAME_H
#define CORE_MQTT_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* MQTT 3.1.1, 2.2.1 */
enum mqtt_type {
    MQTT_CONNECT = 1,
    MQTT_CONNACK = 2,
    MQTT_PUBLISH = 3,
    MQTT_SUBSCRIBE = 8,
    MQTT_SUBACK = 9,
    MQTT_PINGREQ = 12,
    MQTT_PINGRESP = 13,
    MQTT_DISCONNECT = 14,
};

struct mqtt_packet {
    enum mqtt_type type;
    uint8_t flags;
    const uint8_t *bytes; /* all of it, header included; the cutter's or the caller's memory */
    size_t length;
    const uint8_t *body; /* what follows the remaining length */
    size_t body_length;
};

struct mqtt_cutter {
    size_t limit;       /* the longest packet that is let through, header included */
    uint64_t oversized; /* how many were passed over */
    uint8_t *partial;   /* NULL, or `limit` bytes */
    size_t length;      /* bytes in partial */
    size_t skip;        /* bytes of an oversized packet that are still to come */
};

/* Takes the next packet from *bytes, which moves on. 1 when *out holds a packet (until the next
 * call), 0 when all bytes are used up, ERR_EFORMAT for a length of more than four bytes, UV_ENOMEM.
 */
int mqtt_cut(struct mqtt_cutter *cutter, const uint8_t **bytes, size_t *length,
             struct mqtt_packet *out);

void mqtt_cutter_free(struct mqtt_cutter *cutter);

struct mqtt_publish {
    const uint8_t *topic;
    size_t topic_length;
    const uint8_t *payload;
    size_t payload_length;
    unsigned qos;
    bool retained;
};

/* Reads a PUBLISH packet (MQTT 3.1.1, 3.3). 0 or ERR_EFORMAT. */
int mqtt_publish_read(const struct mqtt_packet *packet, struct mqtt_publish *out);

#endif
