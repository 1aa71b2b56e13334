#include "core/nat_fit.h"

#include <math.h>
#include <stdlib.h>

/* All costs are in bits: -log2 of how likely something is. */
#define UNIFORM 16.0      /* any port */
#define FIT 0.15          /* what an explanation foretells comes, as a rule */
#define TAKEN 8.0         /* a port that was taken was passed over, one of a few */
#define MISS (16.0 + 3.3) /* something else came: in one of ten cases, and then any port */
#define CANNOT 23.0       /* what no router does; servers, and routers that start anew, do */
#define ANOTHER_IP 10.0   /* one more external address */
#define LIES 8.0          /* that one server is not to be believed */
#define LIE 16.2          /* what it says then: any port */
#define SAME_LIE 1.0      /* or what it has said before */
#define UNKNOWN 2.0       /* a value that nothing shows, on top of its delta's price */

static const double scope_price[] = {
    [NAT_ENDPOINT_INDEPENDENT] = 1,
    [NAT_ADDRESS_DEPENDENT] = 4,
    [NAT_ADDRESS_AND_PORT_DEPENDENT] = 2,
};
static const double delta_price[] = {
    [ADDR_DELTA_EQUAL] = 1,     [ADDR_DELTA_PRESERVING] = 2, [ADDR_DELTA_INDEPENDENT] = 2,
    [ADDR_DELTA_DEPENDENT] = 3, [ADDR_DELTA_RANDOM] = 2,
};

enum {
    SERVERS_MAX = 8,
    PASSED_OVER = 8,     /* taken ports in a row that are believed */
    FOREIGN_FLOWS = 32,  /* of other people between two of ours that are believed */
    CANDIDATES_MAX = 96, /* values that are tried */
};

/* A new mapping, as the one before it shows it. */
struct birth {
    struct ip ip;
    uint16_t local, port;
    bool first;           /* none came before at this external address: no steps */
    int step, local_step; /* from the one before; steps of ports are circular */
    unsigned unseen;      /* mappings between them of which nobody told us the port */
    bool chained;         /* local ports in a row from there to here */
};

/* The observations as they are to be read if mappings depend on `scope` and `liar` lies. */
struct story {
    enum nat_scope scope;
    const struct ip *liar; /* or NULL */
    struct birth births[NAT_SEEN_MAX];
    size_t count;
    double cost;
};

static int circular(uint16_t from, uint16_t to) {
    return (int16_t)(uint16_t)(to - from);
}

static bool is_answered(const struct nat_seen *seen) {
    return seen->external.family != 0 && seen->external_port != 0;
}

static bool same_mapping(enum nat_scope scope, const struct nat_seen *a, const struct nat_seen *b) {
    return a->local_port == b->local_port &&
           (scope == NAT_ENDPOINT_INDEPENDENT || ip_equal(&a->server, &b->server)) &&
           (scope != NAT_ADDRESS_AND_PORT_DEPENDENT || a->server_port == b->server_port);
}

static bool same_external(const struct nat_seen *a, const struct nat_seen *b) {
    return a->external_port == b->external_port && ip_equal(&a->external, &b->external);
}

/* Reading ------------------------------------------------------------------------------------- */

static bool lies(const struct story *story, const struct nat_seen *seen) {
    return story->liar && ip_equal(story->liar, &seen->server);
}

static double price_of_lie(const struct nat_seen *seen, size_t place) {
    for (size_t i = 0; i < place; i++)
        if (is_answered(&seen[i]) && ip_equal(&seen[i].server, &seen[place].server) &&
            same_external(&seen[i], &seen[place]))
            return SAME_LIE;
    return LIE;
}

/* Two mappings never share an external endpoint. */
static double price_of_birth(const struct story *story, const struct birth *birth) {
    bool known = story->count == 0;
    for (size_t i = 0; i < story->count; i++)
        if (ip_equal(&story->births[i].ip, &birth->ip)) {
            if (story->births[i].port == birth->port)
                return CANNOT;
            known = true;
        }
    return known ? 0 : ANOTHER_IP;
}

struct chain { /* of local ports in a row, since the last birth */
    uint16_t next;
    bool whole;
    unsigned unseen;
};

static void add_birth(struct story *story, const struct nat_seen *seen, struct chain *chain) {
    struct birth *birth = &story->births[story->count];
    const struct birth *before = birth;
    while (before > story->births && !ip_equal(&before[-1].ip, &seen->external))
        before--;
    *birth = (struct birth){.ip = seen->external,
                            .local = seen->local_port,
                            .port = seen->external_port,
                            .first = before == story->births};
    if (!birth->first) {
        before--;
        birth->step = circular(before->port, birth->port);
        birth->local_step = circular(before->local, birth->local);
        birth->unseen = chain->unseen;
        birth->chained = chain->whole && before + 1 == birth && birth->local == chain->next;
    }
    story->cost += price_of_birth(story, birth);
    story->count++;
    *chain = (struct chain){.next = (uint16_t)(birth->local + 1), .whole = true};
}

static void pass_unseen(const struct nat_seen *seen, struct chain *chain) {
    chain->unseen++;
    chain->whole = chain->whole && seen->local_port == chain->next;
    chain->next = (uint16_t)(seen->local_port + 1);
}

/* The mapping that this one goes through: NULL when it is the first of it. */
static const struct nat_seen *mapping_of(const struct story *story, const struct nat_seen *seen,
                                         size_t place, bool *asked_before) {
    *asked_before = false;
    for (size_t i = 0; i < place; i++)
        if (same_mapping(story->scope, &seen[i], &seen[place])) {
            if (is_answered(&seen[i]) && !lies(story, &seen[i]))
                return &seen[i];
            *asked_before = true;
        }
    return NULL;
}

static void read_all(struct story *story, const struct nat_seen *seen, size_t count) {
    struct chain chain = {.whole = false};
    story->count = 0;
    story->cost = scope_price[story->scope] + (story->liar ? LIES : 0);
    for (size_t i = 0; i < count; i++) {
        bool asked_before, answered = is_answered(&seen[i]), lie = lies(story, &seen[i]);
        const struct nat_seen *mapping = mapping_of(story, seen, i, &asked_before);
        if (answered && lie)
            story->cost += price_of_lie(seen, i);
        if (!answered || lie) {
            if (!mapping && !asked_before)
                pass_unseen(&seen[i], &chain);
        } else if (mapping) {
            story->cost += same_external(mapping, &seen[i]) ? FIT / 10 : CANNOT;
        } else {
            add_birth(story, &seen[i], &chain);
        }
    }
}

/* Pricing ------------------------------------------------------------------------------------- */

static double price_equal(const struct birth *birth) {
    int over = circular(birth->local, birth->port);
    if (over == 0)
        return FIT;
    if (over > 0 && over <= PASSED_OVER)
        return TAKEN;
    /* Local ports outside of the router's range are moved into it. */
    return !birth->first && birth->step == birth->local_step ? TAKEN : MISS + 2;
}

static double price_preserving(const struct birth *birth) {
    if (birth->port == birth->local)
        return CANNOT; /* that were equal */
    if (birth->first)
        return UNIFORM;
    int over = birth->step - birth->local_step;
    return over == 0 ? FIT : over > 0 && over <= PASSED_OVER ? TAKEN : MISS;
}

/* Others may have taken ports in between, and so may ours that went unseen. */
static double price_independent(const struct birth *birth, int value) {
    if (birth->first || value == 0)
        return UNIFORM;
    int flows = birth->step % value == 0 ? birth->step / value - 1 : -1;
    if (flows < 0 || flows > (int)birth->unseen + FOREIGN_FLOWS)
        return MISS + 2;
    int foreign = flows - (int)birth->unseen;
    return foreign <= 0 ? 0.3 + log2(birth->unseen + 1.0) : 2.3 + foreign;
}

/* An unseen one in between has either gone through the router or broken the chain before it. */
static double price_dependent(const struct birth *birth, int value) {
    if (!birth->chained || value == 0)
        return UNIFORM;
    bool foretold = birth->step == value * ((int)birth->unseen + 1);
    if (birth->unseen > 0)
        return foretold ? 1 : UNIFORM + 1;
    return foretold ? FIT : MISS;
}

static double price_of_value(int value) {
    double price = value == 0 ? UNKNOWN : 1 + 2 * log2(abs(value));
    return price < 18 ? price : 18;
}

static double price(const struct story *story, enum addr_delta delta, int value) {
    bool steps = delta == ADDR_DELTA_INDEPENDENT || delta == ADDR_DELTA_DEPENDENT;
    double sum = story->cost + delta_price[delta] + (steps ? price_of_value(value) : 0);
    for (size_t i = 0; i < story->count; i++) {
        const struct birth *birth = &story->births[i];
        switch (delta) {
        case ADDR_DELTA_EQUAL:
            sum += price_equal(birth);
            break;
        case ADDR_DELTA_PRESERVING:
            sum += price_preserving(birth);
            break;
        case ADDR_DELTA_INDEPENDENT:
            sum += price_independent(birth, value);
            break;
        case ADDR_DELTA_DEPENDENT:
            sum += price_dependent(birth, value);
            break;
        case ADDR_DELTA_NA:
        case ADDR_DELTA_RANDOM:
            sum += UNIFORM;
            break;
        }
    }
    return sum;
}

/* Choosing ------------------------------------------------------------------------------------ */

struct explanation {
    enum nat_scope scope;
    enum addr_delta delta;
    int value;
    const struct ip *liar;
    double cost;
};

struct choice {
    struct explanation best;
    /* Of all explanations, and of those that say the same as the best: likelihoods, the best's
     * being 1. */
    double all, same_delta, symmetric;
    bool weighing;
};

/* Where the port follows from the local one, each destination sees the same. */
static bool is_symmetric(const struct explanation *one) {
    return one->scope != NAT_ENDPOINT_INDEPENDENT && one->delta != ADDR_DELTA_EQUAL &&
           one->delta != ADDR_DELTA_PRESERVING;
}

static void consider(struct choice *choice, const struct story *story, enum addr_delta delta,
                     int value) {
    struct explanation one = {story->scope, delta, value, story->liar, price(story, delta, value)};
    if (!choice->weighing) {
        if (one.cost < choice->best.cost)
            choice->best = one;
        return;
    }
    double likelihood = exp2(choice->best.cost - one.cost);
    choice->all += likelihood;
    if (delta == choice->best.delta && value == choice->best.value)
        choice->same_delta += likelihood;
    if (is_symmetric(&one))
        choice->symmetric += likelihood;
}

static size_t add_candidate(int *values, size_t count, int value) {
    for (size_t i = 0; i < count; i++)
        if (values[i] == value)
            return count;
    if (value != 0 && count < CANDIDATES_MAX)
        values[count++] = value;
    return count;
}

/* The values that steps show, be it that one or two others came between; 0 when there are none. */
static size_t candidates(const struct story *story, bool chained, int *values) {
    size_t count = 0;
    for (size_t i = 0; i < story->count; i++) {
        const struct birth *birth = &story->births[i];
        for (int parts = 1; parts <= 3; parts++)
            if (!birth->first && (birth->chained || !chained) && birth->step % parts == 0)
                count = add_candidate(values, count, birth->step / parts);
    }
    if (count == 0)
        values[count++] = 0;
    return count;
}

static void consider_deltas(struct choice *choice, const struct story *story) {
    int values[CANDIDATES_MAX];
    consider(choice, story, ADDR_DELTA_EQUAL, 0);
    consider(choice, story, ADDR_DELTA_PRESERVING, 0);
    consider(choice, story, ADDR_DELTA_RANDOM, 0);
    for (size_t i = candidates(story, false, values); i-- > 0;)
        consider(choice, story, ADDR_DELTA_INDEPENDENT, values[i]);
    for (size_t i = candidates(story, true, values); i-- > 0;)
        consider(choice, story, ADDR_DELTA_DEPENDENT, values[i]);
}

static size_t servers_of(const struct nat_observations *observations, const struct ip **servers) {
    size_t count = 0;
    for (size_t i = 0; i < observations->seen_count && count < SERVERS_MAX; i++) {
        const struct nat_seen *seen = &observations->seen[i];
        size_t known = 0;
        while (known < count && !ip_equal(servers[known], &seen->server))
            known++;
        if (known == count && is_answered(seen))
            servers[count++] = &seen->server;
    }
    return count;
}

static void consider_all(struct choice *choice, const struct nat_observations *observations) {
    const struct ip *servers[SERVERS_MAX];
    size_t count = servers_of(observations, servers);
    struct story story;
    for (size_t liar = 0; liar <= (count > 1 ? count : 0); liar++)
        for (int scope = NAT_ENDPOINT_INDEPENDENT; scope <= NAT_ADDRESS_AND_PORT_DEPENDENT;
             scope++) {
            story.scope = (enum nat_scope)scope;
            story.liar = liar > 0 ? servers[liar - 1] : NULL;
            read_all(&story, observations->seen, observations->seen_count);
            consider_deltas(choice, &story);
        }
}

void nat_fit(const struct nat_observations *observations, struct nat_fit *out) {
    struct choice choice = {.best = {.cost = INFINITY}};
    consider_all(&choice, observations);
    choice.weighing = true;
    consider_all(&choice, observations);
    const struct explanation *best = &choice.best;
    bool symmetric = is_symmetric(best);
    double share = choice.symmetric / choice.all;
    *out = (struct nat_fit){
        .mapping = symmetric ? best->scope : NAT_ENDPOINT_INDEPENDENT,
        .delta = best->delta,
        .value = best->value,
        .has_liar = best->liar != NULL,
        .mapping_confidence = symmetric ? share : 1 - share,
        .delta_confidence = choice.same_delta / choice.all,
    };
    if (best->liar)
        out->liar = *best->liar;
}
