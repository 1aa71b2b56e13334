/* nat_model: what a router does to packets: its NAT and its firewall, in the terms of RFC 4787
 * (UDP), RFC 5382 (TCP), RFC 5508 (ICMP) and RFC 6092 (IPv6).
 *
 * Provides  struct nat_config, the behaviours by the names of the address format; struct nat_model
 * Uses      core/ip
 * Owns      the table of mappings and sessions
 * Pure: time and the seed of all randomness are arguments; a model does no I/O and knows no clock.
 *
 *   mapping   inside endpoint (and, when it depends on it, the remote) -> external endpoint; it
 *             lives as long as one of its sessions
 *   session   one mapping with one remote endpoint: what filters look at, and TCP's state
 *
 * What goes out makes sessions; of what comes in only a TCP SYN does that a filter lets in. UDP and
 * ICMP sessions are refreshed by what goes out alone (RFC 4787, 4.3, REQ-6; not 6a), TCP's by both
 * directions. A router without translation whose filters are NAT_FILTER_NONE keeps no state. */
#ifndef CORE_NAT_MODEL_H
#define CORE_NAT_MODEL_H

#include "core/ip.h"

enum nat_protocol {
    NAT_UDP,
    NAT_TCP,
    NAT_ICMP, /* echo; its identifier is the port of the one who asks, the other's is zero */
};
#define NAT_PROTOCOLS 3

/* What a mapping (RFC 4787, 4.1) or a filter (RFC 4787, 5) depends on. */
enum nat_scope {
    NAT_ENDPOINT_INDEPENDENT,
    NAT_ADDRESS_DEPENDENT,
    NAT_ADDRESS_AND_PORT_DEPENDENT,
    /* Of filters alone: not even a mapping is asked for. What is translated needs one all the same,
     * so it is filtered endpoint-independently then. */
    NAT_FILTER_NONE,
};

/* How an external port is chosen: the deltas of the address format (port assignment, RFC 4787,
 * 4.2). What is taken is skipped, and
 * what leaves the range comes in again at its other end. */
enum nat_delta {
    NAT_DELTA_EQUAL,
    NAT_DELTA_PRESERVING,  /* local port + a constant, which comes from the seed */
    NAT_DELTA_INDEPENDENT, /* last + value, whatever the local port */
    NAT_DELTA_DEPENDENT,   /* last + value when the local port is the last one + 1, else random */
    NAT_DELTA_RANDOM,
};

enum nat_uninvited { /* what a SYN gets that nobody asked for */
                     NAT_UNINVITED_DROP,
                     NAT_UNINVITED_RESET,
                     NAT_UNINVITED_UNREACHABLE,
};

struct nat_behaviour {
    bool translates; /* else inside endpoints are external ones as they are */
    bool blocked;    /* nothing passes but TCP to `open_ports` */
    enum nat_scope mapping, filtering;
    enum nat_delta delta;
    enum nat_uninvited uninvited;
    int value;            /* of independent and dependent; may be negative, never 0 */
    uint16_t first, last; /* external ports, both included */
    /* UDP, ICMP: a session's life without traffic (RFC 4787, 4.3; RFC 5508, 3.2). */
    uint32_t idle_s;
    uint32_t established_s, transitory_s; /* TCP (RFC 5382, 5) */
};

#define NAT_ADDRESSES 8
#define NAT_OPEN_PORTS 16
#define NAT_NOISE_MAX 100000

struct nat_config {
    struct nat_behaviour protocols[NAT_PROTOCOLS];
    struct ip external[NAT_ADDRESSES]; /* IPv4; none when nothing is translated */
    unsigned external_count;
    bool paired;  /* an inside address keeps one external address (RFC 4787, 4.1) */
    bool hairpin; /* RFC 4787, 6: external source address and port; of UDP and TCP */
    /* Other people's flows per second, of UDP and as many of TCP, that take external ports; up to
     * NAT_NOISE_MAX. */
    double noise;
    /* Mappings at most, and 4 times as many sessions; what comes then is dropped. */
    uint32_t table_limit;
    double time_scale;                   /* of all times: 0.01 lets tests wait a hundredth */
    uint16_t open_ports[NAT_OPEN_PORTS]; /* where TCP still goes when blocked; ends at 0 */
};

/* The configuration of a seed's type ("port-restricted") and delta ("independent"), both transports
 * alike, with the RFCs' times and a table of 65,536; external addresses are the caller's to add.
 * Returns 0 or UV_EINVAL: no such words, or a pair that cannot be. `delta` is NULL or "na" for what
 * has none: open, udp-firewall (which may be called "equal" too) and blocked. `value` counts for
 * independent and dependent. */
int nat_config_named(const char *type, const char *delta, int value, struct nat_config *out);

/* Nothing translated, as RFC 6092 recommends for IPv6 at homes; it leaves the choice how strict the
 * filters are (REC-11, REC-33). With NAT_FILTER_NONE there is no firewall. */
void nat_config_firewall(enum nat_scope filtering, struct nat_config *out);

/* Whether a model can be made of it: 0 or UV_EINVAL. */
int nat_config_check(const struct nat_config *config);

bool nat_is_external(const struct nat_config *config, const struct ip *ip);

enum nat_tcp_flag { NAT_FIN = 1, NAT_SYN = 2, NAT_RST = 4, NAT_ACK = 16 }; /* RFC 9293, 3.1 */

struct nat_packet {
    enum nat_protocol protocol;
    struct ip source, destination;
    uint16_t source_port, destination_port;
    uint8_t tcp_flags; /* enum nat_tcp_flag, and others */
};

enum nat_verdict {
    NAT_PASS,
    NAT_HAIRPIN, /* passes, and goes back inside: both endpoints were rewritten */
    NAT_DROP,
    NAT_ANSWER_RESET,       /* drop it, and answer with RST */
    NAT_ANSWER_UNREACHABLE, /* drop it, and answer with ICMP: port unreachable (RFC 792), in IPv6
                               administratively prohibited (RFC 4443, 3.1) */
};

/* Why: for timelines. The first three let it pass. */
enum nat_reason {
    NAT_MAPPED_NEW, /* a mapping was made */
    NAT_MAPPED,     /* there was one */
    NAT_UNTRANSLATED,
    NAT_NO_MAPPING, /* inbound: nothing has this external endpoint */
    NAT_FILTERED,   /* inbound: there is a mapping, but nothing went out to this remote */
    NAT_BLOCKED,
    NAT_TABLE_FULL,
    NAT_NO_PORT,
    NAT_NO_HAIRPIN,
    NAT_BAD_STATE, /* no session, and it cannot begin one: TCP without SYN, an echo's reply */
    NAT_REASONS,   /* how many there are */
};

struct nat_model;

/* Returns 0, UV_EINVAL (see nat_config_check) or UV_ENOMEM. */
int nat_model_new(const struct nat_config *config, uint64_t seed, struct nat_model **out);
void nat_model_free(struct nat_model *model);

/* Behaves differently from now on; mappings stay unless `flush`, but for those whose external
 * address is gone. A configuration that nat_config_check refuses changes nothing. */
void nat_model_configure(struct nat_model *model, const struct nat_config *config, bool flush);

/* A packet from the inside, or from the outside; rewrites its endpoints when it passes, and leaves
 * it as it was when not. `now_ms` does not go back. `reason` may be NULL. */
enum nat_verdict nat_model_out(struct nat_model *model, uint64_t now_ms, struct nat_packet *packet,
                               enum nat_reason *reason);
enum nat_verdict nat_model_in(struct nat_model *model, uint64_t now_ms, struct nat_packet *packet,
                              enum nat_reason *reason);

/* An ICMP error (RFC 5508, 4; it never ends, makes or refreshes a mapping): `packet` is the one
 * that it quotes, as the quote has it. From the outside (`inbound`), the quote's source is an
 * external endpoint of ours and becomes the inside one; from the inside, its destination is an
 * inside endpoint and becomes the external one. Returns NAT_PASS or NAT_DROP. */
enum nat_verdict nat_model_error(struct nat_model *model, uint64_t now_ms, bool inbound,
                                 struct nat_packet *packet);

unsigned nat_model_mappings(struct nat_model *model, uint64_t now_ms);

#endif
