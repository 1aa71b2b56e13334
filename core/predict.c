#include "core/predict.h"

enum { USUAL_FIRST = 1024, USUAL_LAST = 65535 };

/* The ring of external ports ------------------------------------------------------------------- */

struct ring {
    int first, size;
};

static int after(const struct ring *ring, int64_t distance) {
    return (int)((distance % ring->size + ring->size) % ring->size);
}

static uint16_t port_at(const struct ring *ring, int64_t port) {
    return (uint16_t)(ring->first + after(ring, port - ring->first));
}

/* What was seen outside of the range is part of it nevertheless. */
static struct ring ring_of(const struct predict_kind *kind, const struct predict_pair *seen,
                           size_t count) {
    int first = kind->first ? kind->first : USUAL_FIRST,
        last = kind->first ? kind->last : USUAL_LAST;
    for (size_t i = 0; i < count; i++) {
        if (seen[i].external != 0 && seen[i].external < first)
            first = seen[i].external;
        if (seen[i].external > last)
            last = seen[i].external;
    }
    return (struct ring){first, last - first + 1};
}

/* Kinds ---------------------------------------------------------------------------------------- */

static bool untranslated(const struct predict_kind *kind) {
    return kind->nat == ADDR_NAT_OPEN || kind->nat == ADDR_NAT_UDP_FIREWALL;
}

static bool steps(enum addr_delta delta) {
    return delta == ADDR_DELTA_INDEPENDENT || delta == ADDR_DELTA_DEPENDENT;
}

bool predict_kind_check(const struct predict_kind *kind) {
    return kind->nat >= ADDR_NAT_OPEN && kind->nat <= ADDR_NAT_BLOCKED &&
           kind->delta >= ADDR_DELTA_NA && kind->delta <= ADDR_DELTA_RANDOM &&
           (kind->first == 0 ? kind->last == 0 : kind->first <= kind->last) &&
           kind->value >= -UINT16_MAX && kind->value <= UINT16_MAX;
}

bool predict_is_kept(const struct predict_kind *kind) {
    if (kind->nat == ADDR_NAT_BLOCKED)
        return false;
    return kind->nat != ADDR_NAT_SYMMETRIC || kind->delta == ADDR_DELTA_EQUAL;
}

/* How a port comes from the last one, after all that no packet can tell apart. */
static enum addr_delta rule_of(const struct predict_kind *kind) {
    if (untranslated(kind))
        return ADDR_DELTA_EQUAL;
    if (kind->nat == ADDR_NAT_SYMMETRIC && kind->delta == ADDR_DELTA_PRESERVING)
        return ADDR_DELTA_DEPENDENT;
    return kind->delta == ADDR_DELTA_NA ? ADDR_DELTA_RANDOM : kind->delta;
}

static int value_of(const struct predict_kind *kind) {
    return kind->delta == ADDR_DELTA_PRESERVING ? 1 : kind->value;
}

/* Samples -------------------------------------------------------------------------------------- */

/* The number of steps of the value that lead from one port to the other, at most half around. */
static int steps_between(const struct ring *ring, int value, uint16_t from, uint16_t to) {
    int way = after(ring, (int64_t)to - from), size = value < 0 ? -value : value;
    if (value < 0)
        way = after(ring, -way);
    return way > ring->size / 2 || way % size != 0 ? -1 : way / size;
}

/* Where the router's counter stood after the last SYN. */
struct base {
    struct predict_pair pair; /* the last one that is known */
    size_t lost;              /* and how many took ports after it */
};

static bool find_base(const struct predict_asked *asked, const struct ring *ring,
                      enum addr_delta rule, struct base *out) {
    const struct predict_pair *seen = asked->samples;
    size_t at = asked->sample_count;
    for (size_t i = 0; i < asked->sample_count; i++) {
        if (seen[i].external == 0)
            continue;
        /* One that overtook those before it. */
        bool back =
            at < i && rule == ADDR_DELTA_INDEPENDENT &&
            steps_between(ring, value_of(&asked->kind), seen[i].external, seen[at].external) > 0;
        if (!back)
            at = i;
    }
    if (at == asked->sample_count)
        return false;
    *out = (struct base){.pair = seen[at]};
    for (size_t i = at + 1; i < asked->sample_count; i++)
        out->lost += seen[i].external == 0;
    return true;
}

static bool cannot_be_had(const struct predict_asked *asked, uint16_t local) {
    for (size_t i = 0; i < asked->taken_count; i++)
        if (asked->taken[i] == local)
            return true;
    return false;
}

static bool is_taken(const struct predict_asked *asked, uint16_t local) {
    if (cannot_be_had(asked, local))
        return true;
    for (size_t i = 0; i < asked->sample_count; i++)
        if (asked->samples[i].local == local)
            return true;
    return false;
}

/* Routers pass over what is in use, and the samples' ports are. */
static bool is_in_use(const struct predict_asked *asked, uint16_t external) {
    for (size_t i = 0; i < asked->sample_count; i++)
        if (asked->samples[i].external == external)
            return true;
    return false;
}

static uint16_t last_local(const struct predict_asked *asked) {
    return asked->samples[asked->sample_count - 1].local;
}

/* The next free local port, around; 0: there is none. */
static uint16_t free_local(const struct predict_asked *asked, uint16_t last) {
    uint32_t local = last;
    for (int tries = 0; tries <= UINT16_MAX; tries++) {
        local =
            local < PREDICT_LOCAL_FIRST || local >= UINT16_MAX ? PREDICT_LOCAL_FIRST : local + 1;
        if (!is_taken(asked, (uint16_t)local))
            return (uint16_t)local;
    }
    return 0;
}

/* Each rule ------------------------------------------------------------------------------------ */

static size_t next_kept(const struct predict_asked *asked, const struct ring *ring,
                        const struct predict_pair *base, bool equal, struct predict_pair *out,
                        size_t count) {
    size_t made = 0;
    for (uint16_t local = last_local(asked);
         made < count && (local = free_local(asked, local)) != 0; made++) {
        if (made > 0 && local == out[0].local)
            break;
        int64_t port = equal ? local : (int64_t)base->external + local - base->local;
        out[made] = (struct predict_pair){local, port_at(ring, port)};
    }
    return made;
}

static uint16_t step(const struct predict_asked *asked, const struct ring *ring, int64_t port) {
    int value = value_of(&asked->kind);
    uint16_t next = port_at(ring, port + value);
    for (size_t i = 0; i < asked->sample_count && is_in_use(asked, next); i++)
        next = port_at(ring, (int64_t)next + value);
    return next;
}

static size_t next_steps(const struct predict_asked *asked, const struct ring *ring,
                         const struct base *base, bool chained, struct predict_pair *out,
                         size_t count) {
    uint16_t external = base->pair.external, local = last_local(asked);
    size_t made = 0;
    for (size_t i = 0; i < base->lost; i++)
        external = step(asked, ring, external);
    for (; made < count; made++) {
        if (chained && (local == UINT16_MAX || is_taken(asked, (uint16_t)(local + 1))))
            break;
        local = chained ? (uint16_t)(local + 1) : free_local(asked, local);
        if (local == 0 || (made > 0 && local == out[0].local))
            break;
        external = step(asked, ring, external);
        out[made] = (struct predict_pair){local, external};
    }
    return made;
}

static size_t seen_ones(const struct predict_asked *asked, struct predict_pair *out, size_t count) {
    size_t made = 0;
    for (size_t i = 0; i < asked->sample_count && made < count; i++)
        if (asked->samples[i].external != 0)
            out[made++] = asked->samples[i];
    return made;
}

size_t predict_next(const struct predict_asked *asked, struct predict_pair *out, size_t count,
                    enum predict_fault *fault) {
    struct ring ring = ring_of(&asked->kind, asked->samples, asked->sample_count);
    enum addr_delta rule = rule_of(&asked->kind);
    struct base base;
    size_t made = 0;
    *fault = PREDICT_FINE;
    if (asked->kind.nat == ADDR_NAT_BLOCKED)
        *fault = PREDICT_BLOCKED;
    else if (rule == ADDR_DELTA_RANDOM && !predict_is_kept(&asked->kind))
        *fault = PREDICT_RANDOM;
    else if (!find_base(asked, &ring, rule, &base))
        *fault = PREDICT_NO_SAMPLE;
    if (*fault != PREDICT_FINE)
        return 0;
    if (untranslated(&asked->kind))
        ring = (struct ring){1, UINT16_MAX};
    if (rule == ADDR_DELTA_RANDOM)
        made = seen_ones(asked, out, count);
    else if (steps(rule))
        made = next_steps(asked, &ring, &base, rule == ADDR_DELTA_DEPENDENT, out, count);
    else
        made = next_kept(asked, &ring, &base.pair, rule == ADDR_DELTA_EQUAL, out, count);
    if (made == 0)
        *fault = PREDICT_CHAIN;
    return made;
}

/* Between two samples -------------------------------------------------------------------------- */

static bool is_chain(const struct predict_pair *list, size_t count) {
    for (size_t i = 1; i < count; i++)
        if (list[i].local != list[0].local + i)
            return false;
    return true;
}

/* list[0] and list[count - 1] are known. */
static void fill(const struct predict_kind *kind, const struct ring *ring, enum addr_delta rule,
                 struct predict_pair *list, size_t count) {
    int value = value_of(kind);
    if (rule == ADDR_DELTA_DEPENDENT && !is_chain(list, count))
        return;
    if (port_at(ring, list[0].external + (int64_t)(count - 1) * value) != list[count - 1].external)
        return;
    for (size_t i = 1; i + 1 < count; i++)
        list[i].external = port_at(ring, list[0].external + (int64_t)i * value);
}

/* What lies before the first known one (from 0 to `at`), or after the last one (from `at` on). */
static void fill_end(const struct predict_kind *kind, const struct ring *ring, enum addr_delta rule,
                     struct predict_pair *list, size_t from, size_t to, size_t at) {
    if (rule == ADDR_DELTA_DEPENDENT && !is_chain(list + from, to - from + 1))
        return;
    for (size_t i = from; i <= to; i++)
        list[i].external =
            port_at(ring, list[at].external + ((int64_t)i - (int64_t)at) * value_of(kind));
}

/* Where each port follows from its local one, one neighbour is enough. */
static void fill_kept(const struct ring *ring, bool equal, const struct predict_pair *known,
                      struct predict_pair *one) {
    int64_t port = equal ? one->local : (int64_t)known->external + one->local - known->local;
    one->external = port_at(ring, port);
}

size_t predict_between(const struct predict_kind *kind, struct predict_pair *list, size_t count) {
    struct ring ring = ring_of(kind, list, count);
    enum addr_delta rule = rule_of(kind);
    const struct predict_pair *known = NULL;
    size_t unknown = 0, first = count, last = count;
    if (untranslated(kind))
        ring = (struct ring){1, UINT16_MAX};
    for (size_t i = 0; i < count; i++) {
        if (list[i].external == 0)
            continue;
        if (last < count && steps(rule))
            fill(kind, &ring, rule, &list[last], i - last + 1);
        known = &list[i];
        first = first < count ? first : i;
        last = i;
    }
    if (known && steps(rule)) {
        fill_end(kind, &ring, rule, list, 0, first, first);
        fill_end(kind, &ring, rule, list, last, count - 1, last);
    }
    bool kept = known && (rule == ADDR_DELTA_EQUAL || rule == ADDR_DELTA_PRESERVING);
    for (size_t i = 0; i < count; i++) {
        if (kept && list[i].external == 0)
            fill_kept(&ring, rule == ADDR_DELTA_EQUAL, known, &list[i]);
        unknown += list[i].external == 0;
    }
    return unknown;
}

/* A port that is wanted ------------------------------------------------------------------------ */

enum predict_fault predict_wanted(const struct predict_asked *asked, uint16_t external,
                                  struct predict_pair *out) {
    struct ring ring = ring_of(&asked->kind, asked->samples, asked->sample_count);
    enum addr_delta rule = untranslated(&asked->kind) ? ADDR_DELTA_EQUAL : asked->kind.delta;
    struct base base = {.pair = {external, external}};
    if (asked->kind.nat == ADDR_NAT_BLOCKED)
        return PREDICT_BLOCKED;
    if (rule != ADDR_DELTA_EQUAL && rule != ADDR_DELTA_PRESERVING)
        return PREDICT_RANDOM;
    if (rule == ADDR_DELTA_PRESERVING && !find_base(asked, &ring, rule, &base))
        return PREDICT_NO_SAMPLE;
    if (!untranslated(&asked->kind) && port_at(&ring, external) != external)
        return PREDICT_RANGE;
    int64_t local = (int64_t)base.pair.local + external - base.pair.external;
    if (rule == ADDR_DELTA_PRESERVING && local < PREDICT_LOCAL_FIRST)
        local += ring.size;
    else if (local > UINT16_MAX)
        local -= ring.size;
    if (local < 1 || local > UINT16_MAX)
        return PREDICT_RANGE;
    *out = (struct predict_pair){(uint16_t)local, external};
    return cannot_be_had(asked, (uint16_t)local) ? PREDICT_CHAIN : PREDICT_FINE;
}
