/* nat_router: one model under test, and the packets that the cases send through it.
 *
 * Hosts 192.168.1.N are inside, servers 30.1.0.N outside, external addresses 30.2.1.2, .3, … Time
 * is `now_ms`; what the last packet got is in `verdict` and `reason`, what became of it in `sent`.
 */
#ifndef SPEC_C_NAT_ROUTER_H
#define SPEC_C_NAT_ROUTER_H

#include "core/err.h"
#include "core/nat_model.h"
#include "spec/c/check.h"

enum { FIN = 1, SYN = 2, RST = 4, ACK = 16 };
enum { SECOND = 1000, MINUTE = 60 * SECOND };
enum { HOST = 10, SERVER = 1, OTHER = 2 };

static struct nat_model *model;
static struct nat_config config;
static uint64_t now_ms;
static enum nat_verdict verdict;
static enum nat_reason reason;
static struct nat_packet sent;

static inline struct ip ip4(uint8_t a, uint8_t b, uint8_t c, unsigned d) {
    return (struct ip){.family = 4, .bytes = {a, b, c, (uint8_t)d}};
}

static inline struct ip inside_ip(unsigned host) {
    return ip4(192, 168, 1, host);
}

static inline struct ip server_ip(unsigned server) {
    return ip4(30, 1, 0, server);
}

static inline struct ip external_ip(unsigned index) {
    return ip4(30, 2, 1, 2 + index);
}

/* `config` as named, with one external address; cases change it before they call start(). */
static inline void name(const char *type, const char *delta, int value) {
    CHECK_EQ(nat_config_named(type, delta, value, &config), 0);
    config.external[0] = external_ip(0);
    config.external_count = 1;
}

static inline void start(uint64_t seed) {
    nat_model_free(model);
    model = NULL;
    now_ms = 1800000000000u; /* any time of this age */
    CHECK_EQ(nat_model_new(&config, seed, &model), 0);
}

static inline void router(const char *type, const char *delta, int value) {
    name(type, delta, value);
    start(1);
}

static inline bool is_unchanged(const struct nat_packet *before) {
    return ip_equal(&sent.source, &before->source) && sent.source_port == before->source_port &&
           ip_equal(&sent.destination, &before->destination) &&
           sent.destination_port == before->destination_port;
}

/* The external port, or 0 when it did not pass. */
static inline uint16_t go_out(enum nat_protocol protocol, uint8_t flags, unsigned host,
                              uint16_t local, struct ip to, uint16_t port) {
    sent = (struct nat_packet){protocol, inside_ip(host), to, local, port, flags};
    struct nat_packet before = sent;
    verdict = nat_model_out(model, now_ms, &sent, &reason);
    bool passed = verdict == NAT_PASS || verdict == NAT_HAIRPIN;
    if (!passed)
        CHECK(is_unchanged(&before));
    return passed ? sent.source_port : 0;
}

/* Whether it passed. */
static inline bool go_in(enum nat_protocol protocol, uint8_t flags, struct ip from, uint16_t port,
                         struct ip to, uint16_t external) {
    sent = (struct nat_packet){protocol, from, to, port, external, flags};
    struct nat_packet before = sent;
    verdict = nat_model_in(model, now_ms, &sent, &reason);
    if (verdict == NAT_PASS)
        return true;
    CHECK(is_unchanged(&before));
    return false;
}

static inline uint16_t udp_out(unsigned host, uint16_t local, unsigned server, uint16_t port) {
    return go_out(NAT_UDP, 0, host, local, server_ip(server), port);
}

static inline bool udp_in(unsigned server, uint16_t port, uint16_t external) {
    return go_in(NAT_UDP, 0, server_ip(server), port, external_ip(0), external);
}

static inline uint16_t tcp_out(uint8_t flags, uint16_t local, unsigned server, uint16_t port) {
    return go_out(NAT_TCP, flags, HOST, local, server_ip(server), port);
}

static inline bool tcp_in(uint8_t flags, unsigned server, uint16_t port, uint16_t external) {
    return go_in(NAT_TCP, flags, server_ip(server), port, external_ip(0), external);
}

/* A SYN or a datagram that begins something. */
static inline uint16_t begin_out(enum nat_protocol protocol, uint16_t local, unsigned server,
                                 uint16_t port) {
    return go_out(protocol, SYN, HOST, local, server_ip(server), port);
}

static inline bool begin_in(enum nat_protocol protocol, unsigned server, uint16_t port,
                            uint16_t external) {
    return go_in(protocol, SYN, server_ip(server), port, external_ip(0), external);
}

static inline bool is_host(unsigned host, uint16_t port) {
    struct ip ip = inside_ip(host);
    return ip_equal(&sent.destination, &ip) && sent.destination_port == port;
}

static inline unsigned mappings(void) {
    return nat_model_mappings(model, now_ms);
}

static inline int report(void) {
    nat_model_free(model);
    return check_report();
}

#endif
