#include "core/mqtt_frame.h"

#include "core/bytes.h"
#include "core/err.h"

#include <stdlib.h>
#include <string.h>

#define HEADER_MAX 5 /* type, and four bytes of length (MQTT 3.1.1, 2.2.3) */

/* How long the packet that begins with these bytes is in all; 0 when they do not say yet. */
static int measure(const uint8_t *bytes, size_t length, size_t *header, size_t *total) {
    size_t remaining = 0;
    *total = 0;
    for (size_t i = 1; i < length; i++) {
        remaining |= (size_t)(bytes[i] & 0x7f) << (7 * (i - 1));
        if (!(bytes[i] & 0x80)) {
            *header = i + 1;
            *total = i + 1 + remaining;
            return 0;
        }
        if (i + 1 == HEADER_MAX)
            return ERR_EFORMAT;
    }
    return 0;
}

static int show(struct mqtt_packet *out, const uint8_t *bytes, size_t header, size_t total) {
    *out = (struct mqtt_packet){
        .type = bytes[0] >> 4,
        .flags = bytes[0] & 0x0f,
        .bytes = bytes,
        .length = total,
        .body = bytes + header,
        .body_length = total - header,
    };
    return 1;
}

static void advance(const uint8_t **bytes, size_t *length, size_t count) {
    *bytes += count;
    *length -= count;
}

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

/* Moves up to `count` bytes of the input to the partial packet. */
static int keep(struct mqtt_cutter *cutter, const uint8_t **bytes, size_t *length, size_t count) {
    if (!cutter->partial && !(cutter->partial = malloc(cutter->limit)))
        return UV_ENOMEM;
    count = smaller(count, *length);
    memcpy(cutter->partial + cutter->length, *bytes, count);
    cutter->length += count;
    advance(bytes, length, count);
    return 0;
}

static int cut_partial(struct mqtt_cutter *cutter, const uint8_t **bytes, size_t *length,
                       struct mqtt_packet *out) {
    size_t header, total;
    while (*length) {
        int status = measure(cutter->partial, cutter->length, &header, &total);
        if (status == 0 && total == 0)
            status = keep(cutter, bytes, length, 1); /* the header, byte by byte */
        if (status)
            return status;
        status = measure(cutter->partial, cutter->length, &header, &total);
        if (status)
            return status;
        if (total == 0)
            continue;
        if (total > cutter->limit) {
            cutter->oversized++;
            cutter->skip = total - cutter->length;
            cutter->length = 0;
            return 0;
        }
        status = keep(cutter, bytes, length, total - cutter->length);
        if (status)
            return status;
        if (cutter->length == total) {
            cutter->length = 0; /* its bytes stay until the next call */
            return show(out, cutter->partial, header, total);
        }
    }
    return 0;
}

int mqtt_cut(struct mqtt_cutter *cutter, const uint8_t **bytes, size_t *length,
             struct mqtt_packet *out) {
    while (*length) {
        if (cutter->skip) {
            size_t skipped = smaller(cutter->skip, *length);
            cutter->skip -= skipped;
            advance(bytes, length, skipped);
            continue;
        }
        if (cutter->length) {
            int status = cut_partial(cutter, bytes, length, out);
            if (status)
                return status;
            continue;
        }
        size_t header, total;
        int status = measure(*bytes, *length, &header, &total);
        if (status)
            return status;
        if (total > cutter->limit) {
            cutter->oversized++;
            cutter->skip = total;
        } else if (total && total <= *length) {
            const uint8_t *packet = *bytes;
            advance(bytes, length, total);
            return show(out, packet, header, total);
        } else {
            status = keep(cutter, bytes, length, *length);
            if (status)
                return status;
        }
    }
    return 0;
}

void mqtt_cutter_free(struct mqtt_cutter *cutter) {
    free(cutter->partial);
    cutter->partial = NULL;
    cutter->length = 0;
}

int mqtt_publish_read(const struct mqtt_packet *packet, struct mqtt_publish *out) {
    unsigned qos = packet->flags >> 1 & 3;
    size_t id_length = qos ? 2 : 0; /* MQTT 3.1.1, 2.3.1 */
    if (packet->type != MQTT_PUBLISH || qos == 3 || packet->body_length < 2)
        return ERR_EFORMAT;
    size_t topic_length = get_u16(packet->body);
    if (packet->body_length < 2 + topic_length + id_length)
        return ERR_EFORMAT;
    *out = (struct mqtt_publish){
        .topic = packet->body + 2,
        .topic_length = topic_length,
        .payload = packet->body + 2 + topic_length + id_length,
        .payload_length = packet->body_length - 2 - topic_length - id_length,
        .qos = qos,
        .retained = packet->flags & 1,
    };
    return 0;
}
