/* packet: each packet is built here, and each checksum is computed anew after it was rewritten. */
#include "core/bytes.h"
#include "core/err.h"
#include "core/packet.h"
#include "spec/c/check.h"
#include "spec/c/packet_maker.h"

#include <stdlib.h>

static void flows_are_read_and_rewritten(void) {
    uint8_t bytes[200];
    for (int version = 0; version < 2; version++)
        for (int protocol = 0; protocol < NAT_PROTOCOLS; protocol++)
            for (size_t payload = 0; payload < 40; payload++) {
                uint8_t number = protocol_for((enum nat_protocol)protocol, version);
                size_t length =
                    flow(bytes, number, inside[version], 5000, outside[version], 80, payload);
                struct packet packet;
                CHECK_EQ(packet_parse(bytes, length, &packet), 0);
                CHECK(!packet.error && (int)packet.flow.protocol == protocol);
                CHECK_EQ(packet.flow.source_port, 5000);
                CHECK_EQ(packet.flow.destination_port, protocol == NAT_ICMP ? 0 : 80);
                CHECK_EQ(packet.flow.tcp_flags, protocol == NAT_TCP ? SYN : 0);
                struct nat_packet changed = packet.flow;
                changed.source = ip(external[version]);
                changed.source_port = (uint16_t)rand();
                packet_rewrite(&packet, &changed);
                CHECK(sealed(bytes, length));
                struct packet again;
                CHECK_EQ(packet_parse(bytes, length, &again), 0);
                CHECK(ip_equal(&again.flow.source, &changed.source) &&
                      ip_equal(&again.source, &changed.source));
                CHECK_EQ(again.flow.source_port, changed.source_port);
            }
}

static void echo_replies_have_the_identifier_at_the_other_end(void) {
    for (int version = 0; version < 2; version++) {
        uint8_t bytes[200];
        uint8_t number = protocol_for(NAT_ICMP, version);
        size_t length = flow(bytes, number, outside[version], 77, external[version], 0, 9);
        bytes[header_size(bytes)] = version == 0 ? 0 : 129;
        seal(bytes, length);
        struct packet packet;
        CHECK_EQ(packet_parse(bytes, length, &packet), 0);
        CHECK_EQ(packet.flow.source_port, 0);
        CHECK_EQ(packet.flow.destination_port, 77);
        struct nat_packet changed = packet.flow;
        changed.destination = ip(inside[version]);
        changed.destination_port = 3;
        packet_rewrite(&packet, &changed);
        CHECK(sealed(bytes, length));
        CHECK_EQ(get_u16(bytes + header_size(bytes) + 4), 3);
    }
}

static void a_udp_checksum_of_zero_stays_and_none_becomes_zero(void) {
    uint8_t bytes[200];
    struct packet packet;
    size_t length = flow(bytes, UDP, inside[0], 5000, outside[0], 80, 10);
    put_u16(bytes + 26, 0);
    CHECK_EQ(packet_parse(bytes, length, &packet), 0);
    struct nat_packet changed = packet.flow;
    changed.source_port = 1234;
    packet_rewrite(&packet, &changed);
    CHECK_EQ(get_u16(bytes + 26), 0);
    for (unsigned port = 1; port < 65536; port++) {
        length = flow(bytes, UDP, inside[0], 5000, outside[0], 80, 2);
        CHECK_EQ(packet_parse(bytes, length, &packet), 0);
        changed.source_port = (uint16_t)port;
        packet_rewrite(&packet, &changed);
        CHECK(get_u16(bytes + 26) != 0);
        CHECK(sealed(bytes, length));
    }
}

static void a_wrong_checksum_stays_wrong(void) {
    uint8_t bytes[200];
    struct packet packet;
    size_t length = flow(bytes, TCP, inside[0], 5000, outside[0], 80, 10);
    bytes[length - 1] ^= 1;
    CHECK_EQ(packet_parse(bytes, length, &packet), 0);
    struct nat_packet changed = packet.flow;
    changed.source = ip(external[0]);
    packet_rewrite(&packet, &changed);
    CHECK(!sealed(bytes, length));
    bytes[length - 1] ^= 1;
    CHECK(sealed(bytes, length));
}

/* RFC 5508, 4.2: an error from the outside about what went out. */
static void errors_from_outside_reach_the_host(void) {
    uint8_t sent[200], bytes[400];
    for (int version = 0; version < 2; version++)
        for (int protocol = 0; protocol < NAT_PROTOCOLS; protocol++)
            for (size_t extra = 0; extra <= 32; extra++) {
                uint8_t number = protocol_for((enum nat_protocol)protocol, version);
                flow(sent, number, external[version], 40000, outside[version], 80, 40);
                size_t quoted = header_size(sent) + 8 + extra;
                size_t length = error(bytes, hop[version], external[version], sent, quoted);
                struct packet packet;
                CHECK_EQ(packet_parse(bytes, length, &packet), 0);
                CHECK(packet.error && (int)packet.flow.protocol == protocol);
                CHECK_EQ(packet.flow.source_port, 40000);
                struct nat_packet changed = packet.flow;
                changed.source = ip(inside[version]);
                changed.source_port = 5000;
                packet_rewrite(&packet, &changed);
                CHECK(sealed(bytes, length));
                struct ip from = ip(hop[version]);
                CHECK(ip_equal(&packet.source, &from));
                CHECK(ip_equal(&packet.destination, &changed.source));
                CHECK_EQ(packet_parse(bytes, length, &packet), 0);
                CHECK(ip_equal(&packet.destination, &changed.source));
                /* The quote is what the host has sent, byte for byte, as far as it goes. */
                uint8_t original[200];
                memcpy(original, sent, sizeof sent);
                size_t all = header_size(sent) + (protocol == NAT_TCP ? 20 : 8) + 40;
                struct packet own;
                CHECK_EQ(packet_parse(original, all, &own), 0);
                packet_rewrite(&own, &changed);
                size_t at = header_size(bytes) + 8;
                size_t half = protocol == NAT_TCP && extra == 9; /* of a checksum says nothing */
                CHECK(memcmp(bytes + at, original, quoted - half) == 0);
            }
}

static void errors_from_inside_hide_the_host(void) {
    uint8_t sent[200], bytes[400];
    flow(sent, UDP, outside[0], 80, inside[0], 5000, 40);
    size_t length = error(bytes, inside[0], outside[0], sent, 48);
    struct packet packet;
    CHECK_EQ(packet_parse(bytes, length, &packet), 0);
    struct nat_packet changed = packet.flow;
    changed.destination = ip(external[0]);
    changed.destination_port = 40000;
    packet_rewrite(&packet, &changed);
    CHECK(sealed(bytes, length));
    CHECK(ip_equal(&packet.source, &changed.destination));
    CHECK_EQ(packet_parse(bytes, length, &packet), 0);
    CHECK(ip_equal(&packet.source, &changed.destination));
    CHECK_EQ(packet.flow.destination_port, 40000);
}

static void resets_follow_rfc_9293(void) {
    for (int version = 0; version < 2; version++)
        for (int ack = 0; ack < 2; ack++) {
            uint8_t bytes[200], answer[PACKET_ANSWER_SIZE];
            size_t length = flow(bytes, TCP, outside[version], 80, external[version], 40000, 11);
            uint8_t *tcp = bytes + header_size(bytes);
            put_u32(tcp + 4, 0xfffffffa);
            put_u32(tcp + 8, 99);
            tcp[13] = ack ? SYN | ACK : SYN;
            struct packet packet, reset;
            CHECK_EQ(packet_parse(bytes, length, &packet), 0);
            size_t size = packet_reset(&packet, answer);
            CHECK(sealed(answer, size));
            CHECK_EQ(packet_parse(answer, size, &reset), 0);
            CHECK_EQ(reset.flow.tcp_flags, ack ? RST : RST | ACK);
            CHECK(ip_equal(&reset.source, &packet.destination) &&
                  ip_equal(&reset.destination, &packet.source));
            CHECK_EQ(reset.flow.source_port, 40000);
            CHECK_EQ(reset.flow.destination_port, 80);
            const uint8_t *out = answer + header_size(answer);
            CHECK_EQ(get_u32(out + 4), ack ? 99 : 0);
            CHECK_EQ(get_u32(out + 8), ack ? 0 : 6); /* 11 bytes and the SYN, around 2^32 */
            CHECK_EQ(packet_reset(&reset, answer), 0);
        }
}

static void unreachable_quotes_what_was_refused(void) {
    for (int version = 0; version < 2; version++)
        for (size_t payload = 0; payload < 1400; payload += 97) {
            uint8_t bytes[1500], answer[PACKET_ANSWER_SIZE];
            size_t length = flow(bytes, UDP, outside[version], 80, external[version], 9, payload);
            struct packet packet, refusal;
            CHECK_EQ(packet_parse(bytes, length, &packet), 0);
            size_t size = packet_unreachable(&packet, answer);
            CHECK(size <= (version == 0 ? 576 : 1280));
            CHECK(sealed(answer, size));
            CHECK_EQ(packet_parse(answer, size, &refusal), 0);
            CHECK(refusal.error && refusal.flow.source_port == 80);
            CHECK(ip_equal(&refusal.destination, &packet.source));
            uint8_t again[PACKET_ANSWER_SIZE];
            CHECK_EQ(packet_unreachable(&refusal, again), 0);
            CHECK_EQ(packet_reset(&packet, again), 0); /* it is no TCP */
        }
}

static void hops_are_raised(void) {
    for (int version = 0; version < 2; version++) {
        uint8_t bytes[200];
        size_t length = flow(bytes, UDP, inside[version], 1, outside[version], 2, 3);
        packet_raise_hops(bytes, length);
        CHECK_EQ(bytes[version == 0 ? 8 : 7], 8);
        CHECK(sealed(bytes, length));
    }
}

static void what_cannot_be_read_is_refused(void) {
    uint8_t bytes[200];
    struct packet packet;
    size_t length = flow(bytes, UDP, inside[0], 1, outside[0], 2, 30);
    for (size_t cut = 0; cut < length; cut++)
        CHECK_EQ(packet_parse(bytes, cut, &packet), ERR_EFORMAT);
    CHECK_EQ(packet_parse(bytes, length + 6, &packet), 0); /* Ethernet's padding */
    CHECK_EQ(packet.length, length);
    put_u16(bytes + 6, 0x2000); /* the first of some fragments */
    CHECK_EQ(packet_parse(bytes, length, &packet), UV_ENOTSUP);
    put_u16(bytes + 6, 1); /* a later one */
    CHECK_EQ(packet_parse(bytes, length, &packet), UV_ENOTSUP);
    put_u16(bytes + 6, 0);
    bytes[9] = 47; /* GRE */
    CHECK_EQ(packet_parse(bytes, length, &packet), UV_ENOTSUP);
    bytes[9] = UDP;
    bytes[0] = 0x44;
    CHECK_EQ(packet_parse(bytes, length, &packet), ERR_EFORMAT);
    length = flow(bytes, ICMP, inside[0], 1, outside[0], 2, 30);
    bytes[20] = 5; /* redirect */
    CHECK_EQ(packet_parse(bytes, length, &packet), UV_ENOTSUP);
}

static void ipv6_extension_headers_are_passed_over(void) {
    uint8_t plain[200], bytes[200];
    size_t length = flow(plain, UDP, inside[1], 5, outside[1], 6, 10);
    memcpy(bytes, plain, 40);
    memset(bytes + 40, 0, 24);
    memcpy(bytes + 64, plain + 40, length - 40);
    put_u16(bytes + 4, (uint16_t)(length - 40 + 24));
    bytes[6] = 0;   /* hop by hop, 8 bytes */
    bytes[40] = 60; /* destination options, 16 bytes */
    bytes[48] = UDP;
    bytes[49] = 1;
    struct packet packet;
    CHECK_EQ(packet_parse(bytes, length + 24, &packet), 0);
    CHECK_EQ(packet.flow.source_port, 5);
    CHECK_EQ(packet.transport, 64);
    bytes[48] = 44; /* a fragment */
    CHECK_EQ(packet_parse(bytes, length + 24, &packet), UV_ENOTSUP);
    bytes[49] = 200;
    bytes[48] = 60;
    CHECK_EQ(packet_parse(bytes, length + 24, &packet), ERR_EFORMAT);
}

int main(void) {
    srand(1);
    RUN(flows_are_read_and_rewritten);
    RUN(echo_replies_have_the_identifier_at_the_other_end);
    RUN(a_udp_checksum_of_zero_stays_and_none_becomes_zero);
    RUN(a_wrong_checksum_stays_wrong);
    RUN(errors_from_outside_reach_the_host);
    RUN(errors_from_inside_hide_the_host);
    RUN(resets_follow_rfc_9293);
    RUN(unreachable_quotes_what_was_refused);
    RUN(hops_are_raised);
    RUN(what_cannot_be_read_is_refused);
    RUN(ipv6_extension_headers_are_passed_over);
    return check_report();
}
