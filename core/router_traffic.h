/* router_traffic: what becomes of the frames that come to a router.
 *
 * Provides  struct traffic: frames in, frames out, what it counts, and the last packets
 * Uses      packet, nat_model, link, frame
 * Owns      a model for IPv4 and one for IPv6, a link for each direction
 * Pure: frames leave by a callback; time (ns of a clock that does not go back) and the seed of all
 * chance are arguments. See router.h for the way that a packet takes. */
#ifndef CORE_ROUTER_TRAFFIC_H
#define CORE_ROUTER_TRAFFIC_H

#include "core/link.h"
#include "core/nat_model.h"

/* The last byte of the Ethernet address that the kernel sends to what is translated already. */
#define ROUTER_BYPASS 4
#define ROUTER_PREFIXES 16
#define ROUTER_EVENTS 8192 /* that are remembered */

enum router_direction { ROUTER_OUT, ROUTER_IN };

struct router_config {
    struct nat_config ipv4, ipv6;
    bool no_ipv6;               /* all of it is dropped */
    struct link_config link[2]; /* by direction */
    struct router_prefix {
        struct ip ip;
        unsigned bits;
    } inside[ROUTER_PREFIXES];
    unsigned inside_count;
};

/* Why. What a model says has its number of enum nat_reason, the first NAT_REASONS ones, of which
 * only two are spoken of here. */
enum router_reason {
    ROUTER_MAPPED_NEW = NAT_MAPPED_NEW,
    ROUTER_MAPPED = NAT_MAPPED,
    ROUTER_UNREADABLE = NAT_REASONS,
    ROUTER_UNSUPPORTED, /* no TCP, UDP, echo or error; a fragment */
    ROUTER_STRAY,       /* neither from nor to the inside: a source that is not its own */
    ROUTER_NO_IPV6,
    ROUTER_UNKNOWN_ERROR, /* an ICMP error about nothing that passed */
    ROUTER_MAPPED_BEFORE, /* the bypass */
    ROUTER_LINK,          /* lost on the way: `fate` says how */
    ROUTER_REASONS,       /* how many there are */
};

/* One packet. Of an ICMP error (`error`), the packet that it quotes. */
struct router_event {
    uint64_t number; /* 1, 2, … */
    uint64_t at_ns;  /* CLOCK_MONOTONIC: comparable between the routers of a machine */
    enum router_direction direction;
    enum nat_verdict verdict;
    enum router_reason reason;
    bool linked; /* it came to a link, and this is its fate there, */
    enum link_fate fate;
    bool readable; /* else no more than `before`'s addresses are known: of what is no IP, nothing */
    bool error;
    struct nat_packet before, after; /* the same when it did not pass */
};

struct router_stats {
    struct router_flow {
        uint64_t packets, bytes;               /* that came */
        uint64_t passed, passed_bytes;         /* that were written back */
        uint64_t fates[LINK_FATES];            /* on the link, answers included */
    } flow[2];                                 /* by direction */
    uint64_t dropped[ROUTER_REASONS];          /* of the packets that came, by reason */
    uint64_t hairpins, resets, unreachables;   /* of what came */
    uint64_t overrun, too_long, unsent;        /* see wire_stats */
    unsigned mappings, mappings_ipv6, on_link; /* now */
    uint64_t events;                           /* the number of the last one */
};

struct traffic;

/* A frame that leaves; it is gone when the callback returns. */
typedef void (*traffic_cb)(void *arg, const uint8_t *frame, size_t length);

int traffic_new(uint64_t seed, traffic_cb send, void *arg, struct traffic **out);
void traffic_free(struct traffic *traffic);

/* Drops everything until it is configured. 0, or UV_EINVAL from nat_config_check, or UV_ENOMEM, and
 * nothing has changed. With `flush`, no mapping stays. */
int traffic_configure(struct traffic *traffic, const struct router_config *config, bool flush);

/* A frame that has come; its bytes are written to. */
void traffic_receive(struct traffic *traffic, uint64_t now_ns, uint8_t *frame, size_t length);

/* Lets go on what is due on the links, and says when it wants to be called again: UINT64_MAX when
 * nothing is on its way. */
void traffic_advance(struct traffic *traffic, uint64_t now_ns);
uint64_t traffic_next_due(const struct traffic *traffic);

/* All but what the wire counts. */
void traffic_stats(struct traffic *traffic, uint64_t now_ns, struct router_stats *out);

/* The first remembered event after number `since`, or NULL. TCP segments of connections that are
 * up, and pass, are not remembered. */
const struct router_event *traffic_next_event(const struct traffic *traffic, uint64_t since);

#endif
