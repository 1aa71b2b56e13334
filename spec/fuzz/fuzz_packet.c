/* Any bytes: parsed within bounds; what was rewritten is read back, and rewriting it again as it
 * was gives the same packet; answers can be read, and have no answer themselves. */
#include "core/packet.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void answer(const struct packet *packet, bool reset) {
    uint8_t out[PACKET_ANSWER_SIZE], again[PACKET_ANSWER_SIZE];
    struct packet read;
    size_t size = reset ? packet_reset(packet, out) : packet_unreachable(packet, out);
    if (size == 0)
        return;
    if (size > sizeof out || packet_parse(out, size, &read) != 0 || read.length != size ||
        !ip_equal(&read.source, &packet->destination) ||
        !ip_equal(&read.destination, &packet->source))
        abort();
    if (reset ? packet_reset(&read, again) : packet_unreachable(&read, again))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
    uint8_t *copy = malloc(length + !length);
    struct packet packet, read;
    if (!copy)
        abort();
    if (length > 0)
        memcpy(copy, bytes, length);
    packet_raise_hops(copy, length);
    if (packet_parse(copy, length, &packet) == 0) {
        if (packet.length > length)
            abort();
        answer(&packet, true);
        answer(&packet, false);
        struct nat_packet before = packet.flow, after = before;
        after.source.bytes[1] ^= 0x55;
        if (after.source_port != 0)
            after.source_port ^= 0x1234;
        packet_rewrite(&packet, &after);
        if (packet_parse(copy, length, &read) != 0 || read.error != packet.error ||
            !ip_equal(&read.flow.source, &after.source) ||
            read.flow.source_port != after.source_port ||
            !ip_equal(packet.error ? &read.destination : &read.source, &after.source))
            abort();
        packet_rewrite(&packet, &before);
    }
    free(copy);
    return 0;
}
