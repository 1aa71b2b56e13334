/* place: where and for how long, as arguments: addresses, ports, time limits.
 *
 * Provides  place_ip, place_port, place_set, place_milliseconds
 * Uses      core/stun_msg */
#ifndef BINDINGS_PLACE_H
#define BINDINGS_PLACE_H

#include "core/stun_msg.h"

#include <lua.h>

/* The value at `index`, called `name` in argument `arg`; throws when it is none. A port is at least
 * `least`. */
struct ip place_ip(lua_State *L, int index, int arg, const char *name);
uint16_t place_port(lua_State *L, int index, int arg, const char *name, uint16_t least);

/* Sets two fields of the table on top, unless there is no address. */
void place_set(lua_State *L, const char *ip_key, const char *port_key,
               const struct stun_endpoint *endpoint);

/* Zero is the core's own patience: what is less than a millisecond counts as one, no limit as a
 * long time. */
unsigned place_milliseconds(double timeout_s);

#endif
