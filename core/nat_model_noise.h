/* nat_model_noise: the flows of other people behind the same router, as far as they matter: each
 * takes an external port by the router's rule and holds it for a while.
 *
 * Provides  struct nat_noise: when the next flow comes, and what it takes
 * Uses      nat_model_ports, chance
 * Owns      nothing; the ports that it holds are marked in the model's
 * Pure. Arrivals are a Poisson process that knows nothing of the packets between them. */
#ifndef CORE_NAT_MODEL_NOISE_H
#define CORE_NAT_MODEL_NOISE_H

#include "core/nat_model_ports.h"

#define NAT_NOISE_HELD 4096 /* flows at once, at most; a newer one ends the oldest then */
#define NAT_NOISE_HOLD_S 10 /* how long a flow holds its port; scaled like all times */

typedef struct nat_ports nat_ports_table[NAT_PROTOCOLS][NAT_ADDRESSES];

struct nat_noise {
    struct chance chance;
    double next_ms; /* when the next flow comes */
    uint64_t hold_ms;
    unsigned first, count;
    struct nat_flow {
        uint64_t until_ms;
        uint16_t port;
        uint8_t protocol, address;
    } held[NAT_NOISE_HELD]; /* a ring */
};

/* Draws the time of the next flow after this one: never, when there is no noise. */
void nat_noise_schedule(struct nat_noise *noise, const struct nat_config *config, double after_ms);

/* A flow comes at `now_ms`; those whose time is over end first. */
void nat_noise_arrive(struct nat_noise *noise, const struct nat_config *config, uint64_t offset,
                      nat_ports_table ports, uint64_t now_ms);

void nat_noise_expire(struct nat_noise *noise, nat_ports_table ports, uint64_t now_ms);

#endif
