#include "core/packet.h"

#include "core/bytes.h"
#include "core/err.h"
#include "core/packet_inner.h"

#include <string.h>

#define QUOTED_MIN 8 /* RFC 792: that much of what follows the quoted IP header */

enum { ECHO4 = 8, ECHO4_REPLY = 0, ECHO6 = 128, ECHO6_REPLY = 129 };

/* --- reading ------------------------------------------------------------------------------- */

static void read_address(uint8_t family, const uint8_t *bytes, struct ip *out) {
    *out = (struct ip){.family = family};
    memcpy(out->bytes, bytes, family == 4 ? 4 : 16);
}

bool packet_addresses(const uint8_t *bytes, size_t length, struct ip *source,
                      struct ip *destination) {
    uint8_t family = length == 0 ? 0 : bytes[0] >> 4;
    if ((family != 4 || length < IPV4_HEADER) && (family != 6 || length < IPV6_HEADER))
        return false;
    read_address(family, bytes + source_at(family), source);
    read_address(family, bytes + destination_at(family), destination);
    return true;
}

/* What an IP header says: the packet's length, where the next header begins, and its protocol. */
struct header {
    size_t length, size;
    uint8_t family, protocol;
};

static int read_ipv4(const uint8_t *bytes, size_t length, struct header *out) {
    if (length < IPV4_HEADER)
        return ERR_EFORMAT;
    *out = (struct header){get_u16(bytes + 2), (size_t)(bytes[0] & 15) * 4, 4, bytes[9]};
    if (out->size < IPV4_HEADER || out->length < out->size || length < out->size)
        return ERR_EFORMAT;
    return get_u16(bytes + 6) & 0x3fff ? UV_ENOTSUP : 0; /* more fragments, or an offset */
}

static int read_ipv6(const uint8_t *bytes, size_t length, struct header *out) {
    if (length < IPV6_HEADER)
        return ERR_EFORMAT;
    *out = (struct header){IPV6_HEADER + get_u16(bytes + 4), IPV6_HEADER, 6, bytes[6]};
    size_t end = out->length < length ? out->length : length;
    while (out->protocol == HOP_BY_HOP || out->protocol == ROUTING ||
           out->protocol == DESTINATION_OPTIONS) {
        if (end - out->size < 8)
            return ERR_EFORMAT;
        out->protocol = bytes[out->size];
        out->size += 8 + (size_t)bytes[out->size + 1] * 8;
        if (out->size > end)
            return ERR_EFORMAT;
    }
    return 0; /* a fragment header (44) is no protocol that anybody reads further */
}

static int read_header(const uint8_t *bytes, size_t length, struct header *out) {
    uint8_t version = length == 0 ? 0 : bytes[0] >> 4;
    return version == 4   ? read_ipv4(bytes, length, out)
           : version == 6 ? read_ipv6(bytes, length, out)
                          : ERR_EFORMAT;
}

static bool is_echo(const struct header *header, const uint8_t *icmp) {
    return header->protocol == ICMP ? icmp[0] == ECHO4 || icmp[0] == ECHO4_REPLY
                                    : icmp[0] == ECHO6 || icmp[0] == ECHO6_REPLY;
}

static bool is_echo_reply(const uint8_t *ip, const uint8_t *icmp) {
    return icmp[0] == (ip[0] >> 4 == 4 ? ECHO4_REPLY : ECHO6_REPLY);
}

/* RFC 792: unreachable, source quench, time exceeded, parameter problem. RFC 4443, 2.1: all below
 * 128. */
static bool is_error(const struct header *header, const uint8_t *icmp) {
    if (header->protocol == ICMPV6)
        return icmp[0] < 128;
    return header->protocol == ICMP &&
           (icmp[0] == 3 || icmp[0] == 4 || icmp[0] == 11 || icmp[0] == 12);
}

/* The endpoints, from the header after IP's, of which `size` bytes are there. */
static int read_flow(const struct header *header, const uint8_t *ip, size_t size,
                     struct nat_packet *out) {
    const uint8_t *next = ip + header->size;
    memset(out, 0, sizeof *out);
    read_address(header->family, ip + source_at(header->family), &out->source);
    read_address(header->family, ip + destination_at(header->family), &out->destination);
    if (size < QUOTED_MIN)
        return ERR_EFORMAT;
    if (header->protocol == TCP || header->protocol == UDP) {
        out->protocol = header->protocol == TCP ? NAT_TCP : NAT_UDP;
        out->source_port = get_u16(next);
        out->destination_port = get_u16(next + 2);
        if (header->protocol == TCP && size > TCP_FLAGS)
            out->tcp_flags = next[TCP_FLAGS];
        return 0;
    }
    if (header->protocol != (header->family == 4 ? ICMP : ICMPV6) || !is_echo(header, next))
        return UV_ENOTSUP;
    out->protocol = NAT_ICMP;
    *(is_echo_reply(ip, next) ? &out->destination_port : &out->source_port) =
        get_u16(next + ICMP_IDENTIFIER);
    return 0;
}

/* The quote is as long as its sender liked; its header may speak of more. */
static int read_quote(struct packet *packet, size_t at) {
    struct header header;
    int status = read_header(packet->bytes + at, packet->length - at, &header);
    if (status != 0)
        return status;
    if (header.family != packet->source.family)
        return ERR_EFORMAT;
    packet->error = true;
    packet->quoted = (uint16_t)at;
    packet->quoted_transport = (uint16_t)(at + header.size);
    return read_flow(&header, packet->bytes + at, packet->length - packet->quoted_transport,
                     &packet->flow);
}

int packet_parse(uint8_t *bytes, size_t length, struct packet *out) {
    struct header header;
    int status = read_header(bytes, length, &header);
    if (status != 0)
        return status;
    if (header.length > length || header.length > UINT16_MAX)
        return ERR_EFORMAT;
    *out = (struct packet){
        .bytes = bytes, .length = header.length, .transport = (uint16_t)header.size};
    packet_addresses(bytes, length, &out->source, &out->destination);
    size_t size = header.length - header.size;
    if (size < ICMP_HEADER || (header.protocol == TCP && size < TCP_HEADER))
        return header.protocol == TCP || header.protocol == UDP ? (int)ERR_EFORMAT : UV_ENOTSUP;
    if (header.protocol == (header.family == 4 ? ICMP : ICMPV6) &&
        is_error(&header, bytes + header.size))
        return read_quote(out, header.size + ICMP_HEADER);
    return read_flow(&header, bytes, size, &out->flow);
}

/* --- writing ------------------------------------------------------------------------------- */

/* RFC 1624, equation 3: HC' = ~(~HC + ~m + m'). A change is the sum of ~m + m' over all 16-bit
 * words that were replaced; a checksum that lies in bytes which another one covers is such a word
 * itself. */
static void put_word(uint8_t *at, uint16_t word, uint32_t *change) {
    *change += (uint32_t)(uint16_t)~get_u16(at) + word;
    put_u16(at, word);
}

static uint16_t updated(uint16_t checksum, uint32_t change) {
    return (uint16_t)~fold((uint32_t)(uint16_t)~checksum + fold(change));
}

static void put_address(uint8_t *at, const struct ip *ip, uint32_t *change) {
    for (size_t i = 0; i < (ip->family == 4 ? 4 : 16); i += 2)
        put_word(at + i, get_u16(ip->bytes + i), change);
}

/* Replaces the endpoints of the packet at `ip`, of which bytes are there up to `end`. Returns the
 * change of all that was written, for a checksum that covers these bytes. */
static uint32_t put_flow(uint8_t *ip, uint8_t *next, const uint8_t *end,
                         const struct nat_packet *flow) {
    uint8_t family = ip[0] >> 4;
    uint32_t addresses = 0, ports = 0, checksums = 0;
    put_address(ip + source_at(family), &flow->source, &addresses);
    put_address(ip + destination_at(family), &flow->destination, &addresses);
    if (flow->protocol == NAT_ICMP) {
        put_word(next + ICMP_IDENTIFIER,
                 is_echo_reply(ip, next) ? flow->destination_port : flow->source_port, &ports);
    } else {
        put_word(next, flow->source_port, &ports);
        put_word(next + 2, flow->destination_port, &ports);
    }
    if (family == 4)
        put_word(ip + IPV4_CHECKSUM, updated(get_u16(ip + IPV4_CHECKSUM), addresses), &checksums);
    uint8_t *checksum = next + (flow->protocol == NAT_TCP   ? TCP_CHECKSUM
                                : flow->protocol == NAT_UDP ? UDP_CHECKSUM
                                                            : ICMP_CHECKSUM);
    /* ICMP's covers no addresses, ICMPv6's does (RFC 4443, 2.3). A UDP checksum of zero is none,
     * and one that comes out as zero is sent as all ones (RFC 768). */
    bool none = flow->protocol == NAT_UDP && get_u16(next + UDP_CHECKSUM) == 0;
    if (checksum + 2 <= end && !none) {
        uint32_t change = ports;
        if (flow->protocol != NAT_ICMP || family == 6)
            change += addresses;
        uint16_t word = updated(get_u16(checksum), change);
        put_word(checksum, word == 0 && flow->protocol == NAT_UDP ? 0xffff : word, &checksums);
    }
    return addresses + ports + checksums;
}

static void put_own_address(struct packet *packet, size_t at, const struct ip *ip,
                            uint32_t *change) {
    uint32_t address = 0;
    put_address(packet->bytes + at, ip, &address);
    if (ip->family == 4)
        put_u16(packet->bytes + IPV4_CHECKSUM,
                updated(get_u16(packet->bytes + IPV4_CHECKSUM), address));
    else
        *change += address;
}

void packet_rewrite(struct packet *packet, const struct nat_packet *flow) {
    uint8_t *bytes = packet->bytes, *end = bytes + packet->length;
    if (!packet->error) {
        put_flow(bytes, bytes + packet->transport, end, flow);
        packet->source = flow->source;
        packet->destination = flow->destination;
    } else {
        uint8_t family = bytes[0] >> 4;
        uint32_t change =
            put_flow(bytes + packet->quoted, bytes + packet->quoted_transport, end, flow);
        if (!ip_equal(&flow->source, &packet->flow.source)) {
            put_own_address(packet, destination_at(family), &flow->source, &change);
            packet->destination = flow->source;
        }
        if (!ip_equal(&flow->destination, &packet->flow.destination)) {
            put_own_address(packet, source_at(family), &flow->destination, &change);
            packet->source = flow->destination;
        }
        uint8_t *checksum = bytes + packet->transport + ICMP_CHECKSUM;
        put_u16(checksum, updated(get_u16(checksum), change));
    }
    packet->flow = *flow;
}

void packet_raise_hops(uint8_t *bytes, size_t length) {
    uint32_t change = 0;
    if (length >= IPV6_HEADER && bytes[0] >> 4 == 6 && bytes[7] != 255)
        bytes[7]++;
    if (length >= IPV4_HEADER && bytes[0] >> 4 == 4 && bytes[8] != 255) {
        put_word(bytes + 8, (uint16_t)(get_u16(bytes + 8) + 0x100), &change);
        put_u16(bytes + IPV4_CHECKSUM, updated(get_u16(bytes + IPV4_CHECKSUM), change));
    }
}
