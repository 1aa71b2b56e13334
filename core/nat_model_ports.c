#include "core/nat_model_ports.h"

#include <string.h>

/* How often one of the rule's own ports is tried before the next free one is taken. */
enum { TRIES = 16 };

static bool is_taken(const struct nat_ports *ports, uint16_t port) {
    return ports->taken[port / 64] >> (port % 64) & 1;
}

void nat_ports_mark(struct nat_ports *ports, uint16_t port) {
    ports->taken[port / 64] |= UINT64_C(1) << (port % 64);
}

void nat_ports_release(struct nat_ports *ports, uint16_t port) {
    ports->taken[port / 64] &= ~(UINT64_C(1) << (port % 64));
}

void nat_ports_clear(struct nat_ports *ports) {
    memset(ports->taken, 0, sizeof ports->taken);
}

static uint32_t size_of(const struct nat_behaviour *rule) {
    return rule->last - rule->first + 1u;
}

/* What leaves the range at one end enters it at the other. */
static uint16_t wrap(const struct nat_behaviour *rule, int64_t port) {
    int64_t size = size_of(rule), place = (port - rule->first) % size;
    return (uint16_t)(rule->first + (place < 0 ? place + size : place));
}

/* The first free port from `from` to `last`, or 0: 64 ports are seen at once. */
static uint16_t free_between(const struct nat_ports *ports, uint32_t from, uint32_t last) {
    for (uint32_t word = from / 64; from <= last && word <= last / 64; word++) {
        uint64_t free = ~ports->taken[word];
        if (word == from / 64)
            free &= ~UINT64_C(0) << (from % 64);
        if (free != 0) {
            uint32_t port = word * 64 + (uint32_t)__builtin_ctzll(free);
            return port <= last ? (uint16_t)port : 0;
        }
    }
    return 0;
}

static uint16_t next_free(const struct nat_ports *ports, const struct nat_behaviour *rule,
                          uint16_t from) {
    uint16_t port = free_between(ports, from, rule->last);
    return port || from == rule->first ? port : free_between(ports, rule->first, from - 1u);
}

static uint16_t draw(const struct nat_behaviour *rule, struct chance *chance) {
    return (uint16_t)(rule->first + chance_below(chance, size_of(rule)));
}

static uint16_t free_at_random(const struct nat_ports *ports, const struct nat_behaviour *rule,
                               struct chance *chance) {
    uint16_t port = draw(rule, chance);
    for (int i = 0; i < TRIES && is_taken(ports, port); i++)
        port = draw(rule, chance);
    return next_free(ports, rule, port);
}

/* Taken ports are stepped over in strides of the same value. */
static uint16_t free_in_steps(const struct nat_ports *ports, const struct nat_behaviour *rule) {
    uint16_t port = wrap(rule, (int64_t)ports->last + rule->value);
    for (int i = 0; i < TRIES && is_taken(ports, port); i++)
        port = wrap(rule, (int64_t)port + rule->value);
    return next_free(ports, rule, port);
}

static uint16_t choose(const struct nat_ports *ports, const struct nat_behaviour *rule,
                       uint64_t offset, uint16_t local, struct chance *chance) {
    switch (rule->delta) {
    case NAT_DELTA_EQUAL:
        return next_free(ports, rule, wrap(rule, local));
    case NAT_DELTA_PRESERVING: {
        int64_t distance = 1 + (int64_t)(offset % (size_of(rule) - 1));
        return next_free(ports, rule, wrap(rule, local + distance));
    }
    case NAT_DELTA_INDEPENDENT:
        if (ports->last != 0)
            return free_in_steps(ports, rule);
        break;
    case NAT_DELTA_DEPENDENT:
        if (ports->last != 0 && ports->next_local == local)
            return free_in_steps(ports, rule);
        break;
    case NAT_DELTA_RANDOM:
        break;
    }
    return free_at_random(ports, rule, chance);
}

uint16_t nat_ports_take(struct nat_ports *ports, const struct nat_behaviour *rule, uint64_t offset,
                        uint16_t local, struct chance *chance) {
    uint16_t port = choose(ports, rule, offset, local, chance);
    if (port == 0)
        return 0;
    nat_ports_mark(ports, port);
    ports->last = port;
    ports->next_local = local + 1u;
    return port;
}
