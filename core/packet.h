/* packet: IP packets as bytes, as far as a router that translates looks at them.
 *
 * Provides  struct packet: its endpoints, read and written back; the answers to what is refused
 * Uses      ip, bytes, and nat_model's struct nat_packet, the endpoints as the model wants them
 * Pure: no I/O. Checksums are never computed anew but updated for what changed (RFC 1624), so that
 * a wrong one stays wrong.
 *
 *   0                   1                   2                   3       IPv4 (RFC 791, 3.1)
 *   0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *  +-------+-------+---------------+-------------------------------+
 *  |version| words | service       | total length                  |
 *  +-------+-------+---------------+-----+-------------------------+
 *  | identification                |flags| fragment offset         |
 *  +---------------+---------------+-----+-------------------------+
 *  | time to live  | protocol      | checksum of the header        |
 *  +---------------+---------------+-------------------------------+
 *  | source, 32 bits; destination, 32 bits; options                |
 *
 *   0                   1                   2                   3       IPv6 (RFC 8200, 3)
 *   0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *  +-------+---------------+---------------------------------------+
 *  |version| traffic class | flow label                            |
 *  +-------+---------------+-------+---------------+---------------+
 *  | payload length                | next header   | hop limit     |
 *  +-------------------------------+---------------+---------------+
 *  | source, 128 bits; destination, 128 bits; extension headers    | */
#ifndef CORE_PACKET_H
#define CORE_PACKET_H

#include "core/nat_model.h"

#define PACKET_ANSWER_SIZE 1280 /* RFC 4443, 2.4 (c): an ICMPv6 error is no longer than this */

struct packet {
    uint8_t *bytes;         /* the caller's */
    size_t length;          /* of the packet: what follows it in `bytes` is padding */
    struct ip source;       /* of the packet itself, */
    struct ip destination;  /* also when it is an ICMP error */
    bool error;             /* an ICMP error: `flow` is the packet that it quotes */
    struct nat_packet flow; /* an echo's identifier is the port of the one who asks, the other's is
                               zero (RFC 5508, 3) */
    uint16_t transport;     /* where the header after IP's begins */
    uint16_t quoted;        /* where the quoted packet begins, and its header after IP's */
    uint16_t quoted_transport;
};

/* 0; ERR_EFORMAT for what is cut off or no IP; UV_ENOTSUP for what is neither TCP, UDP, ICMP echo
 * nor an ICMP error about these, and for fragments: all but the first have no ports. */
int packet_parse(uint8_t *bytes, size_t length, struct packet *out);

/* Only where it comes from and goes to; false for what is no IP. */
bool packet_addresses(const uint8_t *bytes, size_t length, struct ip *source,
                      struct ip *destination);

/* Writes these endpoints in place of its own. Of an error, the quote's are replaced, and the
 * address of the packet itself that followed from them (RFC 5508, 4): its destination when the
 * quote's source has changed, its source when the quote's destination has. */
void packet_rewrite(struct packet *packet, const struct nat_packet *flow);

/* One more hop to go, which makes up for a router's second forwarding of the same packet. */
void packet_raise_hops(uint8_t *bytes, size_t length);

/* Write the answer to a packet that was refused; return its length, or 0 when there must be none.
 * A RST to a TCP segment (RFC 9293, 3.10.7.1) that is no RST itself; a port that is unreachable
 * (RFC 792), with IPv6 one that is prohibited (RFC 6092, 3.3.1; RFC 4443, 3.1), to what is no
 * error. */
size_t packet_reset(const struct packet *packet, uint8_t out[PACKET_ANSWER_SIZE]);
size_t packet_unreachable(const struct packet *packet, uint8_t out[PACKET_ANSWER_SIZE]);

#endif
