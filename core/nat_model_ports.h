/* nat_model_ports: which ports of one external address are taken, and which one is next.
 *
 * Provides  struct nat_ports: take a port by a behaviour's rule, give it back
 * Uses      chance
 * Owns      nothing: 8 KiB without pointers; all zero is a set in which nothing is taken
 * Pure. */
#ifndef CORE_NAT_MODEL_PORTS_H
#define CORE_NAT_MODEL_PORTS_H

#include "core/chance.h"
#include "core/nat_model.h"

struct nat_ports {
    uint64_t taken[65536 / 64]; /* one bit for each port */
    uint16_t last;              /* the last port that was given; 0 when none was */
    uint32_t next_local;        /* the last local port + 1; 0 when there was none */
};

/* Takes a port for an inside endpoint with this local port. `offset` is the router's own, of
 * preserving: the distance that it makes in this range is never 0. Returns 0 when all ports of the
 * range are taken. */
uint16_t nat_ports_take(struct nat_ports *ports, const struct nat_behaviour *rule, uint64_t offset,
                        uint16_t local, struct chance *chance);

void nat_ports_mark(struct nat_ports *ports, uint16_t port);
void nat_ports_release(struct nat_ports *ports, uint16_t port);
void nat_ports_clear(struct nat_ports *ports); /* nothing is taken; what was last stays known */

#endif
