/* predict: which external port a new mapping will have, from what was just seen of others.
 *
 * Provides  struct predict_kind, struct predict_pair; predict_next, predict_between, predict_wanted
 * Uses      addr (types and deltas)
 * Pure. All ports are TCP's, and all arithmetic is that of the router (core/nat_model.h): signed,
 * and what leaves the range [first, last] at one end enters it at the other. */
#ifndef CORE_PREDICT_H
#define CORE_PREDICT_H

#include "core/addr.h"

#include <stddef.h>

#define PREDICT_SAMPLES_MAX 64
#define PREDICT_TAKEN_MAX 1024
#define PREDICT_COUNT_MAX 64
#define PREDICT_LOCAL_FIRST 1024 /* no local port below is proposed */

struct predict_kind {
    enum addr_nat nat;
    enum addr_delta delta;
    int value;            /* of independent and dependent: may be negative, not 0 in predictions */
    uint16_t first, last; /* external ports; 0: not known, then 1024 to 65535 */
};

struct predict_pair {
    uint16_t local, external;
};

struct predict_asked {
    struct predict_kind kind;
    /* What servers saw, in the order in which the SYNs left; external 0: no answer came. */
    const struct predict_pair *samples;
    size_t sample_count;
    const uint16_t *taken; /* local ports that cannot be had */
    size_t taken_count;
};

enum predict_fault {
    PREDICT_FINE,
    PREDICT_RANDOM,    /* nothing follows from anything */
    PREDICT_BLOCKED,   /* nothing gets out */
    PREDICT_NO_SAMPLE, /* none was answered */
    PREDICT_CHAIN,     /* the one local port that would do is taken, or there is none after 65535 */
    PREDICT_RANGE,     /* no local port leads there */
};

bool predict_kind_check(const struct predict_kind *kind);

/* Whether its mapping, once seen from a local port, holds for every destination. */
bool predict_is_kept(const struct predict_kind *kind);

/* The next mappings of new local ports, in their order, up to `count`; how many there are is
 * returned, and why not even one in *fault. Of kept mappings at random, those of the samples.
 *
 * Independent: counts on from the furthest sample (SYNs may overtake each other, foreign flows move
 * it on by multiples of the value). Dependent: from the last one, and the next local port only;
 * a symmetric NAT that preserves distances is one of dependent + 1, as far as packets tell. A
 * sample without answer after those has taken a port: more of its way lies behind the router than
 * before it. */
size_t predict_next(const struct predict_asked *asked, struct predict_pair *out, size_t count,
                    enum predict_fault *fault);

/* `list`: mappings of one burst, in the order in which their SYNs left, external 0 where it is not
 * known: shots, and samples before and after. Between two that are known those are filled in that
 * leave no doubt: no foreign flow came in between. Before the first and after the last known one
 * they are counted from it: bursts are short. Returns how many are still unknown. */
size_t predict_between(const struct predict_kind *kind, struct predict_pair *list, size_t count);

/* The local port that has this external port, or will: of kept ports and distances only. It may be
 * a sample's. */
enum predict_fault predict_wanted(const struct predict_asked *asked, uint16_t external,
                                  struct predict_pair *out);

#endif
