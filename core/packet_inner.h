/* packet_inner: what packet.c and packet_answer.c know of headers.
 *
 * Provides  sizes, places and numbers of IP, TCP, UDP and ICMP; the folding of checksums
 * Uses      nothing of ours
 * Pure. */
#ifndef CORE_PACKET_INNER_H
#define CORE_PACKET_INNER_H

#include <stddef.h>
#include <stdint.h>

/* RFC 791, 3.1; RFC 8200, 3; RFC 9293, 3.1; RFC 768; RFC 792 and RFC 4443, 2.1 */
enum { IPV4_HEADER = 20, IPV4_CHECKSUM = 10, IPV6_HEADER = 40 };
enum { TCP_HEADER = 20, TCP_FLAGS = 13, TCP_CHECKSUM = 16, UDP_HEADER = 8, UDP_CHECKSUM = 6 };
enum { ICMP_HEADER = 8, ICMP_CHECKSUM = 2, ICMP_IDENTIFIER = 4 };

/* Protocol numbers; the last three are IPv6's extension headers (RFC 8200, 4). */
enum {
    ICMP = 1,
    TCP = 6,
    UDP = 17,
    ICMPV6 = 58,
    HOP_BY_HOP = 0,
    ROUTING = 43,
    DESTINATION_OPTIONS = 60,
};

static inline size_t source_at(uint8_t family) {
    return family == 4 ? 12 : 8;
}

static inline size_t destination_at(uint8_t family) {
    return family == 4 ? 16 : 24;
}

/* RFC 1071: the sum of 16-bit words with its carries added in again. */
static inline uint16_t fold(uint32_t sum) {
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

#endif
