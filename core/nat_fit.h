/* nat_fit: how a router maps and which ports it gives, by the explanation that costs least.
 *
 * Provides  nat_fit
 * Uses      nat
 * Pure. Part of nat; see there for what costs mean. */
#ifndef CORE_NAT_FIT_H
#define CORE_NAT_FIT_H

#include "core/nat.h"

struct nat_fit {
    enum nat_scope mapping;
    enum addr_delta delta; /* none but equal when nothing is translated */
    int value;
    bool has_liar;
    struct ip liar;
    double mapping_confidence, delta_confidence;
};

/* Of the observations that have an answer there is one at least. */
void nat_fit(const struct nat_observations *observations, struct nat_fit *out);

#endif
