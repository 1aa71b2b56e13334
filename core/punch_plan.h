/* punch_plan: who sends which SYN when, so that two routers open for each other.
 *
 * Provides  struct plan_side, struct plan; plan_tactic, plan_make
 * Uses      addr (types and deltas), chance, predict (which mappings are kept)
 * Pure: chance is a seed. The tactic follows from both ends' NAT and delta alone, so that both come
 * to the same one without a word; shots fit together as long as each knows the other's ports.
 *
 * A side is K when its mapping is known beforehand and kept, P when its next mappings can be
 * predicted, X when they are random. Of the ports that P announces, those who aim at it take some:
 *
 *   meet      K and K: one SYN each, port to port.
 *   window    K and P: P fires a run of SYNs at K's port, K at every fourth of P's ports. A foreign
 *             flow at P's router moves the run by one port: up to half as far as P has announced
 *             ports, two SYNs of the run are where K aims, then one.
 *   cross     P and P: each fires a run, all of it at the last port of the other's run: that one is
 *             met whatever has moved the other's ports, by less than the run is long. A chain
 *             (dependent) does not move, it breaks: its run is two, side by side with the other's,
 *             or at the ends of two runs of the other, which fires the second one (`exact`) when
 *             the chain's true ports are known.
 *   call      X and K that lets in whom it has sent to, or everybody: K listens, X connects.
 *   birthday  X and K that is stricter: many sockets of X, many ports that K tries. */
#ifndef CORE_PUNCH_PLAN_H
#define CORE_PUNCH_PLAN_H

#include "core/predict.h"

#include <stddef.h>

#define PLAN_PORTS_MAX 16
#define PLAN_SHOTS_MAX 2048
#define PLAN_TRIES_MAX 100
#define PLAN_SOCKETS 256 /* of a birthday, unless told otherwise */
#define PLAN_SPRAYS 1024
#define PLAN_RTT_MAX_MS 5000

enum plan_tactic {
    PLAN_NONE,
    PLAN_MEET,
    PLAN_WINDOW,
    PLAN_CROSS,
    PLAN_CALL,
    PLAN_BIRTHDAY,
};

enum plan_reason {
    PLAN_FINE,
    PLAN_OWN_BLOCKED,
    PLAN_PEER_BLOCKED,
    PLAN_BOTH_RANDOM,
    PLAN_OWN_RANDOM, /* and the peer maps each destination anew */
    PLAN_PEER_RANDOM,
    PLAN_OWN_PORTS, /* the side has no port that this tactic needs */
    PLAN_PEER_PORTS,
    PLAN_NO_BUDGET,
};

struct plan_side {
    struct predict_kind kind;
    /* K: that of its hold. P: the predicted ones, in order; or, when `exact`, those that its shots
     * are known to have (predict_between). X: none. */
    uint16_t ports[PLAN_PORTS_MAX];
    uint16_t locals[PLAN_PORTS_MAX]; /* the same order; of our own side alone */
    unsigned port_count, local_count;
    bool exact;
};

/* What a side has to learn before it can tell the other its facts. */
struct plan_needs {
    bool hold;        /* a local port whose mapping is kept open */
    unsigned samples; /* fresh mappings */
    unsigned ports;   /* how many to predict */
};

enum plan_tactic plan_tactic(const struct plan_side *own, const struct plan_side *peer,
                             struct plan_needs *own_needs, struct plan_needs *peer_needs,
                             enum plan_reason *reason);

struct plan_asked {
    struct plan_side own, peer;
    bool connects;            /* role: else it responds */
    unsigned attempt;         /* 1, 2, … */
    unsigned sockets, sprays; /* at most, of a birthday */
    uint8_t ttl;              /* of openers, from the second attempt on; 0: 2 */
    unsigned rtt_ms;          /* between the hosts; 0: not known */
    uint64_t seed;
};

struct plan_shot {
    uint32_t at_us;         /* from the start */
    uint16_t local, remote; /* local 0: any */
    uint8_t ttl;            /* 0: the usual */
    bool listens;           /* whoever fires it listens on the same port */
};

struct plan {
    enum plan_tactic tactic;
    unsigned shot_count, listen_count;
    uint16_t listen[PLAN_PORTS_MAX];
    /* A shot that is refused is fired again, so often, so long after the refusal. */
    unsigned revive_times, revive_gap_ms;
    unsigned wait_ms; /* from the start: when nothing stands by then, nothing will */
    struct plan_shot shots[PLAN_SHOTS_MAX]; /* in the order of at_us */
};

/* PLAN_FINE, or why there is no plan; *out is complete only then. */
enum plan_reason plan_make(const struct plan_asked *asked, struct plan *out);

#endif
