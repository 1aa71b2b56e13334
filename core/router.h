/* router: the lab's router, which reads what the kernel routes to it, does with each packet what a
 * NAT and a link would, and writes it back to be routed on.
 *
 * Provides  struct router, what it counts, and the last packets that it decided about
 * Uses      wire, packet, nat_model, link, libuv
 * Owns      a wire, a model for IPv4 and one for IPv6, a link for each direction, a timer
 *
 *             from the inside                                   from the outside
 *                   |                                                  |
 *                nat_model, which may answer -----> inside          link, inward
 *                   |  `--- hairpin --------------> inside             |
 *             link, outward  <--------- answers ------------------- nat_model
 *                   |                                                  |
 *                outside                                            inside
 *
 * So the NAT decides about a packet when it would have arrived there. Direction is told by address:
 * what comes from an inside prefix goes out. Frames to ROUTER_BYPASS are translated already, and
 * are only delayed. Each packet gets back the hop that its second forwarding will cost. */
#ifndef CORE_ROUTER_H
#define CORE_ROUTER_H

#include "core/link.h"
#include "core/nat_model.h"

#include <uv.h>

/* The last byte of the Ethernet address that the kernel was told to send such packets to. */
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

/* Why, where it was not the model that decided; nat_model's reasons come before these. */
enum router_reason {
    ROUTER_UNREADABLE = NAT_BAD_STATE + 1,
    ROUTER_UNSUPPORTED, /* no TCP, UDP, echo or error; a fragment */
    ROUTER_STRAY,       /* neither from nor to the inside: a source that is not its own */
    ROUTER_NO_IPV6,
    ROUTER_UNKNOWN_ERROR, /* an ICMP error about nothing that passed */
    ROUTER_MAPPED_BEFORE, /* the bypass */
    ROUTER_LINK,          /* lost on the way: `fate` says how */
};
#define ROUTER_REASONS (ROUTER_LINK + 1)
#define ROUTER_NO_FATE LINK_FATES /* it did not come to a link */

/* One packet. Of an ICMP error (`error`), the packet that it quotes. */
struct router_event {
    uint64_t number; /* 1, 2, … */
    uint64_t at_ns;  /* CLOCK_MONOTONIC: comparable between the routers of a machine */
    enum router_direction direction;
    enum nat_verdict verdict;
    int reason;    /* enum nat_reason or enum router_reason */
    unsigned fate; /* enum link_fate or ROUTER_NO_FATE */
    bool error;
    struct nat_packet before, after;
};

struct router_stats {
    struct router_flow {
        uint64_t packets, bytes;               /* that came */
        uint64_t passed, passed_bytes;         /* that were written back */
        uint64_t fates[LINK_FATES];            /* on the link */
    } flow[2];                                 /* by direction */
    uint64_t dropped[ROUTER_REASONS];          /* by reason */
    uint64_t hairpins, resets, unreachables;   /* of what came */
    uint64_t overrun, long_, unsent;           /* see wire_stats */
    unsigned mappings, mappings_ipv6, on_link; /* now */
    uint64_t events;                           /* the number of the last one */
};

struct router;

/* `device` is the program's end of a veth pair, `kernel_device` the other one, whose offloads are
 * turned off (NULL: is left as it is). Drops everything until it is configured. The seed is that of
 * all chance. Needs CAP_NET_RAW, and CAP_NET_ADMIN for kernel_device. */
int router_open(uv_loop_t *loop, const char *device, const char *kernel_device, uint64_t seed,
                struct router **out);
void router_close(struct router *router);

/* 0, or UV_EINVAL from nat_config_check, and nothing has changed. */
int router_configure(struct router *router, const struct router_config *config, bool flush);

/* Forgets all mappings, and what is on the links. */
void router_flush(struct router *router);

void router_stats(struct router *router, struct router_stats *out);

/* The first remembered event after number `since`, or NULL. TCP segments of connections that are
 * up, and pass, are not remembered. */
const struct router_event *router_next_event(const struct router *router, uint64_t since);

#endif
