/* packet_maker: whole packets with good checksums, and whether a packet has them: all computed
 * here, by other means than core/packet's.
 *
 * Each address comes in two versions: IPv4 at [0], IPv6 at [1]. */
#ifndef SPEC_C_PACKET_MAKER_H
#define SPEC_C_PACKET_MAKER_H

#include "core/bytes.h"
#include "core/nat_model.h"

#include <stdlib.h>
#include <string.h>

enum { ICMP = 1, TCP = 6, UDP = 17, ICMPV6 = 58, SYN = 2, RST = 4, ACK = 16 };

static const char *const inside[] = {"192.168.1.10", "2c0f:30:3:1::10"};
static const char *const outside[] = {"30.1.0.1", "2c0f:30:1::1"};
static const char *const external[] = {"30.2.1.2", "2c0f:30:2:1::2"};
static const char *const hop[] = {"30.9.9.9", "2c0f:9::9"};

static inline struct ip ip(const char *text) {
    struct ip ip;
    if (ip_parse(text, strlen(text), &ip) != 0)
        abort();
    return ip;
}

static inline uint32_t sum(const uint8_t *bytes, size_t length) {
    uint32_t total = 0;
    for (size_t i = 0; i < length; i++)
        total += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
    return total;
}

static inline uint16_t folded(uint32_t total) {
    total = (total & 0xffff) + (total >> 16);
    return (uint16_t)(total + (total >> 16));
}

static inline size_t header_size(const uint8_t *packet) {
    return packet[0] >> 4 == 4 ? (size_t)(packet[0] & 15) * 4 : 40;
}

static inline uint8_t protocol_of(const uint8_t *packet) {
    return packet[0] >> 4 == 4 ? packet[9] : packet[6];
}

static inline uint32_t transport_sum(const uint8_t *packet, size_t length) {
    size_t header = header_size(packet);
    uint8_t protocol = protocol_of(packet);
    uint32_t total = sum(packet + header, length - header);
    if (protocol != ICMP)
        total += (uint32_t)(length - header) + protocol +
                 (packet[0] >> 4 == 4 ? sum(packet + 12, 8) : sum(packet + 8, 32));
    return total;
}

static inline size_t checksum_at(uint8_t protocol) {
    return protocol == TCP ? 16 : protocol == UDP ? 6 : 2;
}

static inline void seal(uint8_t *packet, size_t length) {
    size_t header = header_size(packet), at = header + checksum_at(protocol_of(packet));
    put_u16(packet + at, 0);
    put_u16(packet + at, (uint16_t)~folded(transport_sum(packet, length)));
    if (protocol_of(packet) == UDP && get_u16(packet + at) == 0)
        put_u16(packet + at, 0xffff);
    if (packet[0] >> 4 == 4) {
        put_u16(packet + 10, 0);
        put_u16(packet + 10, (uint16_t)~folded(sum(packet, header)));
    }
}

static inline bool sealed(const uint8_t *packet, size_t length) {
    if (packet[0] >> 4 == 4 && folded(sum(packet, header_size(packet))) != 0xffff)
        return false;
    return folded(transport_sum(packet, length)) == 0xffff;
}

/* An IP header with the addresses, and `size` bytes of the protocol behind it. */
static inline size_t build(uint8_t *out, const char *from, const char *to, uint8_t protocol,
                           size_t size) {
    struct ip a = ip(from), b = ip(to);
    memset(out, 0, 40 + size);
    if (a.family == 4) {
        out[0] = 0x45;
        put_u16(out + 2, (uint16_t)(20 + size));
        out[6] = 0x40;
        out[8] = 7;
        out[9] = protocol;
        memcpy(out + 12, a.bytes, 4);
        memcpy(out + 16, b.bytes, 4);
        return 20;
    }
    out[0] = 0x60;
    put_u16(out + 4, (uint16_t)size);
    out[6] = protocol;
    out[7] = 7;
    memcpy(out + 8, a.bytes, 16);
    memcpy(out + 24, b.bytes, 16);
    return 40;
}

/* A whole packet of the protocol with `payload` bytes. An ICMP one is an echo request with the
 * source's port as its identifier. */
static inline size_t flow(uint8_t *out, uint8_t protocol, const char *from, uint16_t from_port,
                          const char *to, uint16_t to_port, size_t payload) {
    size_t head = protocol == TCP ? 20 : 8, at = build(out, from, to, protocol, head + payload);
    uint8_t *next = out + at;
    for (size_t i = 0; i < payload; i++)
        next[head + i] = (uint8_t)rand();
    if (protocol == TCP || protocol == UDP) {
        put_u16(next, from_port);
        put_u16(next + 2, to_port);
        if (protocol == UDP)
            put_u16(next + 4, (uint16_t)(8 + payload));
        else
            next[12] = 0x50, next[13] = SYN;
    } else {
        next[0] = protocol == ICMP ? 8 : 128;
        put_u16(next + 4, from_port);
    }
    seal(out, at + head + payload);
    return at + head + payload;
}

static inline uint8_t protocol_for(enum nat_protocol protocol, int version) {
    return protocol == NAT_TCP ? TCP : protocol == NAT_UDP ? UDP : version == 0 ? ICMP : ICMPV6;
}

/* An error about `length` bytes of a packet, of which `quoted` are quoted. */
static inline size_t error(uint8_t *out, const char *from, const char *to, const uint8_t *about,
                           size_t quoted) {
    bool ipv4 = about[0] >> 4 == 4;
    size_t at = build(out, from, to, ipv4 ? ICMP : ICMPV6, 8 + quoted);
    out[at] = ipv4 ? 11 : 3; /* time exceeded */
    memcpy(out + at + 8, about, quoted);
    seal(out, at + 8 + quoted);
    return at + 8 + quoted;
}

#endif
