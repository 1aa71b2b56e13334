#include "core/punch_plan.h"

#include "core/chance.h"

#include <math.h>
#include <string.h>

enum {
    /* window */
    SAMPLES = 2,
    RUN = 8,    /* of P's SYNs */
    SLACK = 2,  /* of them behind the mark: a SYN that is lost before the router moves it back */
    STRIDE = 4, /* between the ports that K aims at; half of the run, so that two are met */
    CHAIN = 2,  /* the same of a chain, which does not move */
    AIMS = 8,   /* SYNs to one who has not proven who they are, at most */
    /* birthday */
    LOOK_US = 50,    /* between two SYNs of X, */
    SPRAY_US = 40,   /* and of K, */
    LATER_US = 8000, /* whose first comes so much later: what comes too early to X's router is */
                     /* refused for good, since K does not fire a thousand again; X does */
    SYNS = 2048,     /* of X with those that are fired again, at most: per minute and destination */
    X_REVIVES = 7,
    PORTS_IN_ALL = 65536,
    /* call */
    CALLS = 2,
    CALL_US = 150000,
    OPENERS = 4,
    OPENER_US = 250000,
    /* all */
    GAP_US = 200, /* between neighbours of a run: their order is kept */
    REVIVES_MIN = 8,
    REVIVES_MAX = 48,
    REVIVED = 128, /* SYNs that are fired again, about, of all together */
    USUAL_RTT_MS = 100,
    AFTER_MS = 60, /* what a loaded machine needs */
    LOW_TTL = 2,
};
#define SURE 0.9995 /* no more SYNs than make a birthday so likely */

/* Sides ---------------------------------------------------------------------------------------- */

enum sort { K, P, X, B };

static enum sort sort_of(const struct plan_side *side) {
    if (side->kind.nat == ADDR_NAT_BLOCKED)
        return B;
    if (predict_is_kept(&side->kind))
        return K;
    return side->kind.delta == ADDR_DELTA_RANDOM || side->kind.delta == ADDR_DELTA_NA ? X : P;
}

static bool is_chain(const struct plan_side *side) {
    return sort_of(side) == P && side->kind.delta != ADDR_DELTA_INDEPENDENT;
}

/* Lets in whom it has sent to, from whichever port; or everybody. */
static bool lets_in(const struct plan_side *side, bool *everybody) {
    *everybody = side->kind.nat == ADDR_NAT_OPEN || side->kind.nat == ADDR_NAT_FULL_CONE;
    return *everybody || side->kind.nat == ADDR_NAT_RESTRICTED;
}

static enum plan_tactic tactic_of(const struct plan_side *own, const struct plan_side *peer,
                                  enum plan_reason *reason) {
    enum sort mine = sort_of(own), theirs = sort_of(peer);
    bool everybody;
    *reason = PLAN_FINE;
    if (mine == B || theirs == B) {
        *reason = mine == B ? PLAN_OWN_BLOCKED : PLAN_PEER_BLOCKED;
        return PLAN_NONE;
    }
    if (mine == K && theirs == K)
        return PLAN_MEET;
    if (mine == P && theirs == P)
        return PLAN_CROSS;
    if (mine == X && theirs == X)
        *reason = PLAN_BOTH_RANDOM;
    else if (mine != K && theirs != K)
        *reason = mine == X ? PLAN_OWN_RANDOM : PLAN_PEER_RANDOM;
    if (*reason != PLAN_FINE)
        return PLAN_NONE;
    if (mine == P || theirs == P)
        return PLAN_WINDOW;
    return lets_in(mine == K ? own : peer, &everybody) ? PLAN_CALL : PLAN_BIRTHDAY;
}

static struct plan_needs needs_of(const struct plan_side *side, const struct plan_side *other,
                                  enum plan_tactic tactic) {
    bool twice = tactic == PLAN_WINDOW || is_chain(other);
    struct plan_needs needs = {.hold = sort_of(side) == K};
    if (sort_of(side) == P) {
        needs.samples = SAMPLES;
        needs.ports = is_chain(side) ? CHAIN : twice ? 2 * RUN : RUN;
    }
    return needs;
}

enum plan_tactic plan_tactic(const struct plan_side *own, const struct plan_side *peer,
                             struct plan_needs *own_needs, struct plan_needs *peer_needs,
                             enum plan_reason *reason) {
    enum plan_tactic tactic = tactic_of(own, peer, reason);
    *own_needs = *peer_needs = (struct plan_needs){0};
    if (tactic != PLAN_NONE) {
        *own_needs = needs_of(own, peer, tactic);
        *peer_needs = needs_of(peer, own, tactic);
    }
    return tactic;
}

/* Shots ---------------------------------------------------------------------------------------- */

static void add(struct plan *plan, uint32_t at_us, uint16_t local, uint16_t remote) {
    if (plan->shot_count < PLAN_SHOTS_MAX)
        plan->shots[plan->shot_count++] =
            (struct plan_shot){.at_us = at_us, .local = local, .remote = remote};
}

static void listen_on(struct plan *plan, uint16_t local) {
    for (unsigned i = 0; i < plan->listen_count; i++)
        if (plan->listen[i] == local)
            return;
    if (plan->listen_count < PLAN_PORTS_MAX)
        plan->listen[plan->listen_count++] = local;
}

/* One after another from its local ports, so many as are told. */
static void run(struct plan *plan, const struct plan_side *own, unsigned count, uint16_t remote) {
    for (unsigned i = 0; i < count && i < own->local_count; i++) {
        add(plan, i * GAP_US, own->locals[i], remote);
        listen_on(plan, own->locals[i]);
    }
}

static void meet(const struct plan_asked *asked, struct plan *plan) {
    run(plan, &asked->own, 1, asked->peer.ports[0]);
}

/* The places of P's ports that K aims at: all of few, and every fourth of many. */
static unsigned stride_of(const struct plan_asked *asked) {
    const struct plan_side *peer = &asked->peer;
    if (peer->exact || is_chain(peer) || peer->port_count < RUN)
        return 1;
    return asked->attempt > 1 && peer->port_count <= AIMS * STRIDE / 2 ? STRIDE / 2 : STRIDE;
}

static void window(const struct plan_asked *asked, struct plan *plan) {
    const struct plan_side *own = &asked->own, *peer = &asked->peer;
    if (sort_of(own) == P) {
        run(plan, own, is_chain(own) ? CHAIN : RUN, peer->ports[0]);
        return;
    }
    unsigned stride = stride_of(asked);
    listen_on(plan, own->locals[0]);
    for (unsigned i = stride - 1; i < peer->port_count && plan->shot_count < AIMS; i += stride)
        add(plan, plan->shot_count * GAP_US, own->locals[0], peer->ports[i]);
}

/* The place of the port at which everything is aimed: near the end of the side's run, or, when it
 * has announced two of them, of its second one. */
static unsigned mark_of(const struct plan_side *side, unsigned which) {
    unsigned count = side->port_count, run = count < RUN ? count : RUN;
    if (is_chain(side))
        return which < count ? which : count - 1;
    unsigned before = which > 0 && count >= 2 * RUN ? RUN : 0;
    return before + run - 1 - (run > SLACK ? SLACK : 0);
}

/* A chain that broke has ports that nobody expected: they are told, and the run of the other side,
 * whose second mark the second SYN of the chain has aimed at, comes once more. */
static void run_again(const struct plan_asked *asked, struct plan *plan) {
    struct plan_side rest = asked->own;
    if (rest.local_count < 2 * RUN || asked->peer.port_count < 2)
        return;
    memmove(rest.locals, rest.locals + RUN, RUN * sizeof rest.locals[0]);
    run(plan, &rest, RUN, asked->peer.ports[1]);
}

static void cross(const struct plan_asked *asked, struct plan *plan) {
    const struct plan_side *own = &asked->own, *peer = &asked->peer;
    if (!is_chain(own) && peer->exact) {
        run_again(asked, plan);
        return;
    }
    run(plan, own, is_chain(own) ? CHAIN : RUN, peer->ports[mark_of(peer, 0)]);
    for (unsigned i = 1; is_chain(own) && i < plan->shot_count; i++)
        plan->shots[i].remote = peer->ports[mark_of(peer, i)];
}

/* Random and blind ----------------------------------------------------------------------------- */

static void range_of(const struct plan_side *side, uint32_t *first, uint32_t *size) {
    *first = side->kind.first ? side->kind.first : PREDICT_LOCAL_FIRST;
    *size = (side->kind.first ? side->kind.last : UINT16_MAX) - *first + 1u;
}

static void call(const struct plan_asked *asked, struct plan *plan) {
    const struct plan_side *own = &asked->own;
    struct chance chance = {asked->seed + asked->attempt};
    uint32_t first, size;
    bool everybody;
    if (sort_of(own) == X) {
        for (uint32_t i = 0; i < CALLS; i++)
            add(plan, i * CALL_US, 0, asked->peer.ports[0]);
        return;
    }
    listen_on(plan, own->locals[0]);
    lets_in(own, &everybody);
    range_of(&asked->peer, &first, &size);
    for (uint32_t i = 0; i < OPENERS && !everybody; i++)
        add(plan, i * OPENER_US, own->locals[0], (uint16_t)(first + chance_below(&chance, size)));
}

/* As many of `count` as the birthday needs: 1 - (1 - sockets / size) ^ n. */
static unsigned enough(unsigned sockets, uint32_t size, unsigned count) {
    if (sockets >= size)
        return 1;
    double needed = ceil(log(1 - SURE) / log1p(-(double)sockets / size));
    return needed < count ? (unsigned)needed : count;
}

/* Distinct ports of the range, all as likely: the first of a shuffled list. */
static void spray(const struct plan_asked *asked, struct plan *plan, unsigned count) {
    uint16_t ports[PORTS_IN_ALL];
    struct chance chance = {asked->seed + asked->attempt};
    uint32_t first, size;
    range_of(&asked->peer, &first, &size);
    for (uint32_t i = 0; i < size; i++)
        ports[i] = (uint16_t)(first + i);
    for (uint32_t i = 0; i < count && i < size; i++) {
        uint32_t other = i + chance_below(&chance, size - i);
        uint16_t port = ports[other];
        ports[other] = ports[i];
        add(plan, LATER_US + i * SPRAY_US, asked->own.locals[0], port);
    }
}

static enum plan_reason birthday(const struct plan_asked *asked, struct plan *plan) {
    unsigned sockets = asked->sockets, sprays = asked->sprays;
    bool more = asked->attempt > 1; /* the first one may have been bad luck, or a smaller range */
    uint32_t first, size;
    if (sockets == 0 || sprays == 0)
        return PLAN_NO_BUDGET;
    if (sort_of(&asked->own) == X) {
        for (uint32_t i = 0; i < sockets; i++) {
            add(plan, i * LOOK_US, 0, asked->peer.ports[0]);
            plan->shots[plan->shot_count - 1].listens = true;
        }
        unsigned times = SYNS / plan->shot_count;
        plan->revive_times = times > X_REVIVES ? X_REVIVES : times > 0 ? times - 1 : 0;
        return PLAN_FINE;
    }
    range_of(&asked->peer, &first, &size);
    listen_on(plan, asked->own.locals[0]);
    spray(asked, plan, more ? sprays : enough(sockets, size, sprays));
    plan->revive_times = 0;
    return PLAN_FINE;
}

/* All of it ------------------------------------------------------------------------------------ */

/* From the second attempt on, one side opens with SYNs that do not get to the other router, and the
 * other's come when they have: the one that responds, then the one that connects, and so on. A
 * chain is likelier to have broken than to have been refused, and waiting breaks it: each third
 * attempt is enough there. */
static void change(const struct plan_asked *asked, struct plan *plan) {
    bool chains = plan->tactic == PLAN_CROSS && (is_chain(&asked->own) || is_chain(&asked->peer));
    bool opens = asked->connects == (asked->attempt % 2 == 1);
    uint32_t later_us = ((asked->rtt_ms ? asked->rtt_ms : USUAL_RTT_MS) / 2 + 15) * 1000u;
    if (asked->attempt < 2 || (chains && asked->attempt % 3 != 0))
        return;
    for (unsigned i = 0; i < plan->shot_count; i++) {
        if (opens)
            plan->shots[i].ttl = asked->ttl ? asked->ttl : LOW_TTL;
        else
            plan->shots[i].at_us += later_us;
    }
}

/* Each time lasts a round trip: where that is short and the two start apart, many are needed. */
static unsigned times_of(const struct plan *plan) {
    unsigned times = plan->shot_count ? REVIVED / plan->shot_count : 0;
    return times < REVIVES_MIN ? REVIVES_MIN : times > REVIVES_MAX ? REVIVES_MAX : times;
}

static unsigned wait_of(const struct plan_asked *asked, const struct plan *plan) {
    unsigned rtt_ms = asked->rtt_ms ? asked->rtt_ms : USUAL_RTT_MS;
    uint32_t last_us = plan->shot_count ? plan->shots[plan->shot_count - 1].at_us : 0;
    return last_us / 1000 + 4 * rtt_ms + AFTER_MS;
}

static enum plan_reason check_ports(const struct plan_asked *asked) {
    bool own = sort_of(&asked->own) != X, peer = sort_of(&asked->peer) != X;
    if (own && (asked->own.port_count == 0 || asked->own.local_count == 0))
        return PLAN_OWN_PORTS;
    return peer && asked->peer.port_count == 0 ? PLAN_PEER_PORTS : PLAN_FINE;
}

enum plan_reason plan_make(const struct plan_asked *asked, struct plan *out) {
    enum plan_reason reason;
    out->tactic = tactic_of(&asked->own, &asked->peer, &reason);
    out->shot_count = out->listen_count = 0;
    /* Two that fire again after the same time would meet each other's gaps for ever. */
    out->revive_gap_ms = asked->connects ? 1 : 3;
    if (reason == PLAN_FINE)
        reason = check_ports(asked);
    if (reason != PLAN_FINE)
        return reason;
    switch (out->tactic) {
    case PLAN_MEET:
        meet(asked, out);
        break;
    case PLAN_WINDOW:
        window(asked, out);
        break;
    case PLAN_CROSS:
        cross(asked, out);
        break;
    case PLAN_CALL:
        call(asked, out);
        break;
    case PLAN_BIRTHDAY:
        reason = birthday(asked, out);
        break;
    case PLAN_NONE:
        break;
    }
    if (out->tactic != PLAN_BIRTHDAY)
        out->revive_times = times_of(out);
    bool aims = out->tactic != PLAN_CALL && out->tactic != PLAN_BIRTHDAY;
    if (aims)
        change(asked, out);
    out->wait_ms = wait_of(asked, out);
    return reason;
}
