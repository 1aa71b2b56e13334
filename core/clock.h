/* clock: which time is right when servers say several, and what time it is from then on.
 *
 * Provides  clock_select over what servers said; struct clock, a corrected time
 * Uses      err
 * Pure but for clock_steady_ns and clock_machine_ns, which read the machine; it sets no clock.
 *
 * The true time is told by its distance from a steady clock, which nobody sets and which goes on
 * while the machine sleeps (CLOCK_BOOTTIME). So what was measured stays true when somebody sets
 * the machine's clock meanwhile. */
#ifndef CORE_CLOCK_H
#define CORE_CLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLOCK_SERVERS_MAX 64
#define CLOCK_DRIFT_PPM 15 /* by which a clock may gain or lose: PHI, RFC 5905, figure 5 */

struct clock_view {
    int64_t offset_ns; /* the true time (since 1970) minus the steady clock */
    int64_t error_ns;  /* by which that may be wrong; of a server its root distance
                          (RFC 5905, 11.2: half of delays, and dispersion) */
};

/* What most of the servers agree on (RFC 5905, 11.2.1): the interval that holds all points which
 * lie in the intervals of all servers but as few as possible. The offset is the median of those in
 * it, so that a lie that is within the others' error moves it little; the error is a bound as long
 * as no more lie. `agrees` gets whose intervals touch it. 0; UV_EPROTO: there is no majority;
 * UV_EINVAL: `count` is 0 or over CLOCK_SERVERS_MAX, or a number is out of range. */
int clock_select(const struct clock_view *views, size_t count, struct clock_view *out,
                 bool *agrees);

struct clock {
    struct clock_view view;
    int64_t set_at_ns, told_ns;
    bool set;
};

/* Goes by `view` from now on; `steady_ns` is now by the steady clock. */
void clock_set(struct clock *clock, const struct clock_view *view, int64_t steady_ns);

/* The true time as far as it is known; of a clock that was not set, the machine's. It does not
 * run backward: where a new view takes back less than CLOCK_HOLD_NS it stands still so long. */
#define CLOCK_HOLD_NS 1000000000
int64_t clock_now_ns(struct clock *clock, int64_t steady_ns, int64_t machine_ns);

/* By how much it may be wrong now: more as time goes by. INT64_MAX when it was not set. */
int64_t clock_error_ns(const struct clock *clock, int64_t steady_ns);

int64_t clock_steady_ns(void);
int64_t clock_machine_ns(void); /* since 1970 */

#endif
