/* router_inner: what bindings/router.c and router_config.c share.
 *
 * Provides  the reading of a router's configuration from a Lua table
 * Uses      core/router, bindings/fail */
#ifndef BINDINGS_ROUTER_INNER_H
#define BINDINGS_ROUTER_INNER_H

#include "core/router.h"

#include <lua.h>

/* Reads the table at `arg`; throws for what is unknown, of another type or out of range. What nat
 * says but for the translation holds for IPv6 too:
 *
 *   { nat = {type=, delta=, value=, udp = behaviour, tcp = behaviour, icmp = behaviour,
 *            external = {ip, …}, pairing=, hairpin=, noise=, table=, time_scale=,
 *            open_ports = {port, …}},
 *     ipv6 = "firewall"|"open"|"none", inside = {"ip/bits", …}, out = link, ["in"] = link,
 *     flush = boolean }
 *
 *   behaviour: {type=, delta=, value=, mapping=, filtering=, uninvited=, ports = {first, last},
 *               timeout_s=, transitory_s=}, laid over what nat's type and delta say
 *   link:      {delay_ms=, jitter_ms=, loss=, duplicate=, reorder=, rate_mbit=, up=} */
void check_router_config(lua_State *L, int arg, struct router_config *out, bool *flush);

/* The words of the configuration, by the model's numbers. */
extern const char *const router_protocols[]; /* udp, tcp, icmp */

#endif
