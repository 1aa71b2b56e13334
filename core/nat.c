#include "core/nat_fit.h"

#include <math.h>
#include <string.h>

#define LENGTH(list) (sizeof(list) / sizeof((list)[0]))

/* How sure we are at most, and where something is assumed rather than seen. */
#define SURE 0.99
#define ASSUMED 0.4    /* nobody could tell us how it filters */
#define BORROWED 0.5   /* UDP's filter, told of TCP */
#define UNVERIFIED 0.7 /* silence from an address of which nothing is known to come */
#define LIED_TO 0.85   /* one of the servers lied */
#define DISAGREE 0.5   /* two servers, of which one lies */
#define ONE_SERVER 0.6 /* it may be the server that is silent, not the router */
#define TWO_SERVERS 0.92

enum { IPS_MAX = 16, UNLISTED_TRIES = 3, RANGE_SEEN = 8, FAR = 64 };
#define ALL_PORTS 64512.0 /* those from 1024 on */

/* HTTP, HTTPS, MQTT, STUN, the last two over TLS. */
static const uint16_t common_ports[] = {80, 443, 1883, 3478, 5349, 8883};

bool nat_is_common_port(uint16_t port) {
    for (size_t i = 0; i < LENGTH(common_ports); i++)
        if (common_ports[i] == port)
            return true;
    return false;
}

static bool is_answered(const struct nat_seen *seen) {
    return seen->external.family != 0 && seen->external_port != 0;
}

/* External addresses: the vote of the servers ---------------------------------------------------
 */

struct vote {
    struct ip server, said; /* what it says first */
    unsigned agreeing;      /* others that have said the same at some time */
};

struct election {
    struct vote votes[IPS_MAX];
    size_t count;
};

static bool has_said(const struct nat_observations *observations, const struct ip *server,
                     const struct ip *external) {
    for (size_t i = 0; i < observations->seen_count; i++) {
        const struct nat_seen *seen = &observations->seen[i];
        if (ip_equal(&seen->server, server) && ip_equal(&seen->external, external))
            return true;
    }
    return false;
}

static bool agree(const struct nat_observations *observations, const struct ip *a,
                  const struct ip *b) {
    for (size_t i = 0; i < observations->seen_count; i++) {
        const struct nat_seen *seen = &observations->seen[i];
        if (is_answered(seen) && ip_equal(&seen->server, a) &&
            has_said(observations, b, &seen->external))
            return true;
    }
    return false;
}

static void elect(const struct nat_observations *observations, struct election *out) {
    out->count = 0;
    for (size_t i = 0; i < observations->seen_count && out->count < IPS_MAX; i++) {
        const struct nat_seen *seen = &observations->seen[i];
        bool known = !is_answered(seen);
        for (size_t j = 0; j < out->count && !known; j++)
            known = ip_equal(&out->votes[j].server, &seen->server);
        if (!known)
            out->votes[out->count++] = (struct vote){seen->server, seen->external, 0};
    }
    for (size_t i = 0; i < out->count; i++)
        for (size_t j = 0; j < out->count; j++)
            if (i != j && agree(observations, &out->votes[i].server, &out->votes[j].server))
                out->votes[i].agreeing++;
}

static const struct vote *winner(const struct election *election) {
    const struct vote *best = election->count > 0 ? &election->votes[0] : NULL;
    for (size_t i = 1; i < election->count; i++)
        if (election->votes[i].agreeing > best->agreeing)
            best = &election->votes[i];
    return best;
}

/* The one that agrees with nobody, where others agree. */
static const struct vote *outsider(const struct election *election) {
    const struct vote *found = NULL;
    if (election->count < 3)
        return NULL;
    for (size_t i = 0; i < election->count; i++)
        if (election->votes[i].agreeing == 0) {
            if (found)
                return NULL;
            found = &election->votes[i];
        }
    return found;
}

/* Filtering -------------------------------------------------------------------------------------
 */

/* How often a request or its answer is lost, from below: never thought to be nothing. */
static double loss_of(const struct nat_observations *observations) {
    double lost = 1, all = 20;
    for (size_t i = 0; i < observations->seen_count; i++)
        if (is_answered(&observations->seen[i])) {
            all++;
        } else if (!observations->seen[i].refused) {
            lost++, all++;
        }
    return lost / all < 0.5 ? lost / all : 0.5;
}

/* Whether an answer came from that endpoint, asked in plain. */
static bool is_alive(const struct nat_observations *observations, const struct ip *ip,
                     uint16_t port) {
    for (size_t i = 0; i < observations->seen_count; i++) {
        const struct nat_seen *seen = &observations->seen[i];
        if (is_answered(seen) && seen->server_port == port && ip_equal(&seen->server, ip))
            return true;
    }
    return false;
}

struct silence { /* of all tests of one kind */
    bool answered, verified;
    unsigned tries;
};

static struct silence hear(const struct nat_observations *observations, bool other_address,
                           bool borrowed) {
    struct silence out = {.verified = borrowed};
    for (size_t i = 0; i < observations->test_count && i < NAT_TESTS_MAX; i++) {
        const struct nat_filter_test *test = &observations->tests[i];
        if (ip_equal(&test->server, &test->from) == other_address)
            continue;
        out.answered |= test->answered;
        out.tries += test->answered || test->tries > 100 ? 1 : test->tries;
        out.verified |= is_alive(observations, &test->from, test->from_port);
    }
    return out;
}

/* How sure it is that silence is the router's. */
static double trust(const struct silence *silence, double loss) {
    if (silence->tries == 0)
        return ASSUMED;
    double chance = 1 / (1 + pow(loss, silence->tries));
    return silence->verified || chance < UNVERIFIED ? chance : UNVERIFIED;
}

static double find_filtering(const struct nat_observations *observations, enum nat_scope *out) {
    bool borrowed = observations->protocol != NAT_UDP;
    double loss = loss_of(observations), confidence;
    struct silence address = hear(observations, true, borrowed);
    struct silence port = hear(observations, false, borrowed);
    if (address.answered) {
        *out = NAT_ENDPOINT_INDEPENDENT;
        confidence = SURE;
    } else if (port.answered) {
        *out = NAT_ADDRESS_DEPENDENT;
        confidence = trust(&address, loss);
    } else {
        *out = NAT_ADDRESS_AND_PORT_DEPENDENT;
        confidence = trust(&port, loss); /* who lets in another address lets in another port */
    }
    return confidence;
}

/* TCP's own test, by a relay, goes over what UDP does. */
static double tcp_filtering(const struct nat_observations *observations, enum nat_scope *out) {
    double confidence = find_filtering(observations, out);
    if (observations->stranger > 0) {
        *out = NAT_ENDPOINT_INDEPENDENT;
        return SURE;
    }
    if (observations->stranger < 0 && *out == NAT_ENDPOINT_INDEPENDENT)
        *out = NAT_ADDRESS_AND_PORT_DEPENDENT;
    return confidence < BORROWED ? confidence : BORROWED;
}

/* Blocked ---------------------------------------------------------------------------------------
 */

static size_t servers_asked(const struct nat_observations *observations) {
    size_t count = 0;
    for (size_t i = 0; i < observations->seen_count; i++) {
        size_t before = 0;
        while (before < i &&
               !ip_equal(&observations->seen[before].server, &observations->seen[i].server))
            before++;
        count += before == i;
    }
    return count;
}

/* No answer at all. */
static double nothing_came(const struct nat_observations *observations) {
    size_t servers = servers_asked(observations);
    return servers == 0 ? 0 : servers == 1 ? ONE_SERVER : servers == 2 ? TWO_SERVERS : 0.96;
}

/* TCP gets to common ports and to no other, and UDP to none. */
static double only_common_ports(const struct nat_observations *observations) {
    unsigned tries = 0;
    if (observations->protocol != NAT_TCP || !observations->udp_silent)
        return 0;
    for (size_t i = 0; i < observations->seen_count; i++) {
        const struct nat_seen *seen = &observations->seen[i];
        if (nat_is_common_port(seen->server_port))
            continue;
        if (is_answered(seen) || seen->refused)
            return 0;
        tries += seen->tries > 100 ? 100 : seen->tries;
    }
    return tries < UNLISTED_TRIES ? 0 : TWO_SERVERS;
}

/* The range -------------------------------------------------------------------------------------
 */

/* Chosen at random, ports that stay within a part of all show the part: as much is added at either
 * end as lies between two of them on average. */
static void range_of_random(const struct nat_observations *observations, const struct nat_fit *fit,
                            struct nat_report *out) {
    int lowest = UINT16_MAX, highest = 0, count = 0;
    for (size_t i = 0; i < observations->seen_count; i++) {
        const struct nat_seen *seen = &observations->seen[i];
        bool before = !is_answered(seen) || (fit->has_liar && ip_equal(&seen->server, &fit->liar));
        for (size_t j = 0; j < i && !before; j++)
            before = observations->seen[j].external_port == seen->external_port;
        if (before)
            continue;
        lowest = seen->external_port < lowest ? seen->external_port : lowest;
        highest = seen->external_port > highest ? seen->external_port : highest;
        count++;
    }
    int span = highest - lowest;
    if (count < RANGE_SEEN || count * pow(span / ALL_PORTS, count - 1) > 1e-3)
        return;
    int margin = span / (count - 1);
    out->first = (uint16_t)(lowest > margin ? lowest - margin : 1);
    out->last = (uint16_t)(highest < UINT16_MAX - margin ? highest + margin : UINT16_MAX);
}

static bool is_new(const struct nat_observations *observations, size_t place) {
    const struct nat_seen *seen = observations->seen;
    for (size_t i = 0; i < place; i++)
        if (seen[i].external_port == seen[place].external_port)
            return false;
    return true;
}

/* Counting on, ports that jump back have come to the end, and none comes beyond it. */
static void range_of_steps(const struct nat_observations *observations, struct nat_report *out) {
    const struct nat_seen *before = NULL;
    int sign = out->value > 0 ? 1 : -1, jumps = 0, ends = 0, begins = 0, farthest = 0;
    for (size_t i = 0; i < observations->seen_count; i++) {
        const struct nat_seen *seen = &observations->seen[i];
        if (!is_answered(seen) || !is_new(observations, i))
            continue;
        int place = sign * seen->external_port;
        if (before && place - sign * before->external_port < -FAR) {
            jumps++;
            ends = before->external_port;
            begins = seen->external_port;
        }
        farthest = !before || place > farthest ? place : farthest;
        before = seen;
    }
    if (jumps != 1 || farthest > sign * ends) /* it was something else */
        return;
    out->first = (uint16_t)(sign > 0 ? begins : ends);
    out->last = (uint16_t)(sign > 0 ? ends : begins);
}

/* Together --------------------------------------------------------------------------------------
 */

static enum addr_nat type_of(bool translated, enum nat_scope mapping, enum nat_scope filtering) {
    static const enum addr_nat cones[] = {
        [NAT_ENDPOINT_INDEPENDENT] = ADDR_NAT_FULL_CONE,
        [NAT_ADDRESS_DEPENDENT] = ADDR_NAT_RESTRICTED,
        [NAT_ADDRESS_AND_PORT_DEPENDENT] = ADDR_NAT_PORT_RESTRICTED,
    };
    if (!translated)
        return filtering == NAT_ENDPOINT_INDEPENDENT ? ADDR_NAT_OPEN : ADDR_NAT_UDP_FIREWALL;
    return mapping == NAT_ENDPOINT_INDEPENDENT ? cones[filtering] : ADDR_NAT_SYMMETRIC;
}

static void blocked(double confidence, struct nat_report *out) {
    out->type = ADDR_NAT_BLOCKED;
    out->delta = ADDR_DELTA_NA;
    out->translated = out->external.family != 0;
    out->mapping = out->filtering = NAT_ADDRESS_AND_PORT_DEPENDENT;
    out->type_confidence = out->confidence = confidence;
    out->delta_confidence = 1;
}

static double at_most(double value, double most) {
    return value < most ? value : most;
}

static void judge(const struct nat_observations *observations, struct nat_report *out) {
    struct nat_fit fit = {.delta = ADDR_DELTA_NA, .mapping_confidence = 1, .delta_confidence = 1};
    out->translated = !ip_equal(&out->external, &observations->local);
    if (out->translated)
        nat_fit(observations, &fit);
    double filtered = observations->protocol == NAT_TCP
                          ? tcp_filtering(observations, &out->filtering)
                          : find_filtering(observations, &out->filtering);
    out->mapping = fit.mapping;
    out->delta = fit.delta;
    out->value = fit.value;
    out->type = type_of(out->translated, out->mapping, out->filtering);
    out->type_confidence = at_most(fit.mapping_confidence, SURE);
    if (out->type != ADDR_NAT_SYMMETRIC)
        out->type_confidence *= filtered;
    out->delta_confidence = at_most(fit.delta_confidence, SURE);
    if (fit.has_liar)
        out->liar = fit.liar;
    if (fit.delta == ADDR_DELTA_RANDOM)
        range_of_random(observations, &fit, out);
    if (fit.delta == ADDR_DELTA_INDEPENDENT && !fit.has_liar)
        range_of_steps(observations, out);
}

/* Without what a server has said: its requests have made mappings all the same. */
static size_t leave_out(const struct ip *server, struct nat_seen *seen, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (ip_equal(&seen[i].server, server))
            seen[i].external = (struct ip){0};
    return count;
}

void nat_classify(const struct nat_observations *given, struct nat_report *out) {
    struct nat_observations observations = *given;
    struct nat_seen seen[NAT_SEEN_MAX];
    struct election election;
    memset(out, 0, sizeof *out);
    if (observations.seen_count > NAT_SEEN_MAX)
        observations.seen_count = NAT_SEEN_MAX;
    elect(&observations, &election);
    const struct vote *best = winner(&election), *alone = outsider(&election);
    double confidence = 1;
    if (alone) {
        memcpy(seen, observations.seen, observations.seen_count * sizeof *seen);
        observations.seen_count = leave_out(&alone->server, seen, observations.seen_count);
        observations.seen = seen;
    } else if (election.count == 2 && best->agreeing == 0) {
        confidence = DISAGREE;
    }
    if (best)
        out->external = best->said;
    double common = best ? only_common_ports(&observations) : nothing_came(&observations);
    if (!best || common > 0) {
        blocked(common, out);
        return;
    }
    judge(&observations, out);
    if (alone)
        out->liar = alone->server;
    if (out->liar.family != 0)
        confidence = at_most(confidence, LIED_TO);
    out->type_confidence *= confidence;
    out->delta_confidence *= confidence;
    out->confidence = out->type_confidence * out->delta_confidence;
}
