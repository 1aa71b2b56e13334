/* MQTT packets cut from a stream: whatever the bytes, in whatever pieces they come, the same
 * packets come out. */
#include "core/err.h"
#include "core/mqtt_frame.h"

#include <stdlib.h>
#include <string.h>

#define LIMIT 64

struct tally {
    size_t packets, bytes, topics;
    uint64_t oversized;
    unsigned sum;
    int status;
};

static void add(struct tally *tally, const struct mqtt_packet *packet) {
    struct mqtt_publish message;
    tally->packets++;
    tally->bytes += packet->length;
    for (size_t i = 0; i < packet->length; i++)
        tally->sum = tally->sum * 31 + packet->bytes[i];
    if (packet->length > LIMIT ||
        packet->body + packet->body_length != packet->bytes + packet->length)
        abort();
    if (mqtt_publish_read(packet, &message))
        return;
    tally->topics += message.topic_length;
    if (message.payload + message.payload_length != packet->bytes + packet->length)
        abort();
}

/* `step` bytes at a time, each piece in memory of its own, so that reading beyond it is noticed. */
static struct tally cut(const uint8_t *data, size_t size, size_t step) {
    struct mqtt_cutter cutter = {.limit = LIMIT};
    struct tally tally = {0};
    while (size && tally.status >= 0) {
        size_t length = size < step ? size : step, left = length;
        uint8_t *piece = malloc(length);
        const uint8_t *at = piece;
        struct mqtt_packet packet;
        memcpy(piece, data, length);
        while ((tally.status = mqtt_cut(&cutter, &at, &left, &packet)) > 0)
            add(&tally, &packet);
        free(piece);
        data += length;
        size -= length;
    }
    tally.oversized = cutter.oversized;
    mqtt_cutter_free(&cutter);
    return tally;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    struct tally whole = cut(data, size, size);
    for (size_t step = 1; step < 8; step += 2) {
        struct tally pieces = cut(data, size, step);
        if (memcmp(&whole, &pieces, sizeof(whole)) != 0)
            abort();
    }
    return 0;
}
