/* What a router says to the sender of a packet that it refuses. */
#include "core/bytes.h"
#include "core/packet.h"
#include "core/packet_inner.h"

#include <string.h>

#define HOPS 64              /* RFC 1700 */
#define IPV4_ANSWER_SIZE 576 /* RFC 1812, 4.3.2.3 */

/* RFC 1071: the sum of all 16-bit words, the last one filled up with a zero byte. */
static uint32_t sum_of(const uint8_t *bytes, size_t length) {
    uint32_t sum = 0;
    for (size_t i = 0; i + 1 < length; i += 2)
        sum += get_u16(bytes + i);
    return length % 2 ? sum + (uint32_t)(bytes[length - 1] << 8) : sum;
}

static void put_checksum(uint8_t *at, uint32_t sum) {
    put_u16(at, (uint16_t)~fold(sum));
}

/* The pseudo header: both addresses, the length, the protocol (RFC 9293, 3.1; RFC 8200, 8.1). */
static uint32_t pseudo_sum(const struct ip *from, const struct ip *to, uint8_t protocol,
                           size_t size) {
    size_t address = from->family == 4 ? 4 : 16;
    return sum_of(from->bytes, address) + sum_of(to->bytes, address) + (uint32_t)size + protocol;
}

/* Writes an IP header before `size` bytes of the protocol, back to where the packet came from.
 * Returns its length. */
static size_t put_header(const struct packet *packet, uint8_t protocol, size_t size, uint8_t *out) {
    const struct ip *from = &packet->destination, *to = &packet->source;
    if (from->family == 4) {
        memset(out, 0, IPV4_HEADER);
        out[0] = 4 << 4 | IPV4_HEADER / 4;
        put_u16(out + 2, (uint16_t)(IPV4_HEADER + size));
        put_u16(out + 6, 0x4000); /* may not be fragmented */
        out[8] = HOPS;
        out[9] = protocol;
        memcpy(out + source_at(4), from->bytes, 4);
        memcpy(out + destination_at(4), to->bytes, 4);
        put_checksum(out + IPV4_CHECKSUM, sum_of(out, IPV4_HEADER));
        return IPV4_HEADER;
    }
    memset(out, 0, IPV6_HEADER);
    out[0] = 6 << 4;
    put_u16(out + 4, (uint16_t)size);
    out[6] = protocol;
    out[7] = HOPS;
    memcpy(out + source_at(6), from->bytes, 16);
    memcpy(out + destination_at(6), to->bytes, 16);
    return IPV6_HEADER;
}

size_t packet_reset(const struct packet *packet, uint8_t out[PACKET_ANSWER_SIZE]) {
    const struct nat_packet *flow = &packet->flow;
    if (packet->error || flow->protocol != NAT_TCP || (flow->tcp_flags & NAT_RST))
        return 0;
    const uint8_t *asked = packet->bytes + packet->transport;
    size_t size = packet->length - packet->transport, header = (size_t)(asked[12] >> 4) * 4;
    size_t segment = header < size ? size - header : 0;
    segment += (size_t)((flow->tcp_flags & NAT_SYN) != 0) + ((flow->tcp_flags & NAT_FIN) != 0);
    size_t at = put_header(packet, TCP, TCP_HEADER, out);
    uint8_t *tcp = out + at;
    memset(tcp, 0, TCP_HEADER);
    put_u16(tcp, flow->destination_port);
    put_u16(tcp + 2, flow->source_port);
    tcp[12] = TCP_HEADER / 4 << 4;
    if (flow->tcp_flags & NAT_ACK) { /* <SEQ=SEG.ACK><CTL=RST> */
        put_u32(tcp + 4, get_u32(asked + 8));
        tcp[TCP_FLAGS] = NAT_RST;
    } else { /* <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK> */
        put_u32(tcp + 8, get_u32(asked + 4) + (uint32_t)segment);
        tcp[TCP_FLAGS] = NAT_RST | NAT_ACK;
    }
    put_checksum(tcp + TCP_CHECKSUM,
                 sum_of(tcp, TCP_HEADER) +
                     pseudo_sum(&packet->destination, &packet->source, TCP, TCP_HEADER));
    return at + TCP_HEADER;
}

size_t packet_unreachable(const struct packet *packet, uint8_t out[PACKET_ANSWER_SIZE]) {
    if (packet->error) /* RFC 1122, 3.2.2; RFC 4443, 2.4 (e) */
        return 0;
    bool ipv4 = packet->source.family == 4;
    size_t most = ipv4 ? IPV4_ANSWER_SIZE - IPV4_HEADER : PACKET_ANSWER_SIZE - IPV6_HEADER;
    size_t quote = packet->length < most - ICMP_HEADER ? packet->length : most - ICMP_HEADER;
    size_t size = ICMP_HEADER + quote;
    uint8_t protocol = ipv4 ? ICMP : ICMPV6;
    size_t at = put_header(packet, protocol, size, out);
    uint8_t *icmp = out + at;
    memset(icmp, 0, ICMP_HEADER);
    icmp[0] = ipv4 ? 3 : 1; /* destination unreachable, */
    icmp[1] = ipv4 ? 3 : 1; /* port; administratively prohibited */
    memcpy(icmp + ICMP_HEADER, packet->bytes, quote);
    uint32_t sum = sum_of(icmp, size);
    if (!ipv4)
        sum += pseudo_sum(&packet->destination, &packet->source, protocol, size);
    put_checksum(icmp + ICMP_CHECKSUM, sum);
    return at + size;
}
