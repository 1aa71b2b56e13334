#include "core/nat_model_noise.h"

#include <math.h>

enum { LOCAL_FIRST = 1024, LOCALS = 65536 - LOCAL_FIRST };

void nat_noise_schedule(struct nat_noise *noise, const struct nat_config *config, double after_ms) {
    double rate = 2 * config->noise / 1000; /* of UDP and TCP together, per ms */
    if (rate > 0)
        noise->next_ms = after_ms - log1p(-chance_share(&noise->chance)) / rate;
    else
        noise->next_ms = INFINITY;
}

static void end_oldest(struct nat_noise *noise, nat_ports_table ports) {
    const struct nat_flow *flow = &noise->held[noise->first];
    nat_ports_release(&ports[flow->protocol][flow->address], flow->port);
    noise->first = (noise->first + 1) % NAT_NOISE_HELD;
    noise->count--;
}

void nat_noise_expire(struct nat_noise *noise, nat_ports_table ports, uint64_t now_ms) {
    while (noise->count > 0 && noise->held[noise->first].until_ms <= now_ms)
        end_oldest(noise, ports);
}

/* Noise leaves half of all ports to others, at least. */
static unsigned held_limit(const struct nat_config *config) {
    unsigned limit = NAT_NOISE_HELD;
    for (enum nat_protocol i = NAT_UDP; i <= NAT_TCP; i++) {
        const struct nat_behaviour *rule = &config->protocols[i];
        unsigned half = (rule->last - rule->first + 1u) / 2 * config->external_count;
        if (rule->translates && half < limit)
            limit = half;
    }
    return limit;
}

void nat_noise_arrive(struct nat_noise *noise, const struct nat_config *config, uint64_t offset,
                      nat_ports_table ports, uint64_t now_ms) {
    struct chance *chance = &noise->chance;
    enum nat_protocol protocol = chance_below(chance, 2) ? NAT_TCP : NAT_UDP;
    uint16_t local = (uint16_t)(LOCAL_FIRST + chance_below(chance, LOCALS));
    const struct nat_behaviour *rule = &config->protocols[protocol];
    nat_noise_expire(noise, ports, now_ms);
    unsigned limit = held_limit(config);
    if (!rule->translates || (rule->blocked && protocol == NAT_UDP) || limit == 0)
        return;
    if (noise->count >= limit)
        end_oldest(noise, ports);
    uint8_t address = (uint8_t)chance_below(chance, config->external_count);
    uint16_t port = nat_ports_take(&ports[protocol][address], rule, offset, local, chance);
    if (port == 0)
        return;
    noise->held[(noise->first + noise->count++) % NAT_NOISE_HELD] = (struct nat_flow){
        .until_ms = now_ms + noise->hold_ms,
        .port = port,
        .protocol = (uint8_t)protocol,
        .address = address,
    };
}
