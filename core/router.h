/* router: the lab's router, which reads what the kernel routes to it, does with each packet what a
 * NAT and a link would, and writes it back to be routed on.
 *
 * Provides  struct router; what becomes of its frames, what is counted and remembered, says
 *           router_traffic
 * Uses      wire, nat_model, link, libuv
 * Owns      a wire, the traffic, a timer
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
 * are only delayed. Each packet gets back the hop that its second forwarding will cost. What the
 * kernel itself says of a packet that is translated by now (an ICMP error: a host that is gone, a
 * smaller MTU) does not come by here, so that it quotes what nobody has sent. */
#ifndef CORE_ROUTER_H
#define CORE_ROUTER_H

#include "core/router_traffic.h"

#include <uv.h>

struct router;

/* `device` is the program's end of a veth pair, `kernel_device` the other one, whose offloads are
 * turned off (NULL: is left as it is). Drops everything until it is configured. The seed is that of
 * all chance. Needs CAP_NET_RAW, and CAP_NET_ADMIN for kernel_device. */
int router_open(uv_loop_t *loop, const char *device, const char *kernel_device, uint64_t seed,
                struct router **out);
void router_close(struct router *router);

/* See traffic_configure. */
int router_configure(struct router *router, const struct router_config *config, bool flush);

void router_stats(struct router *router, struct router_stats *out);

/* See traffic_next_event. */
const struct router_event *router_next_event(const struct router *router, uint64_t since);

#endif
