#include "core/clock.h"

#include <stdlib.h>
#include <time.h>
#include <uv.h>

/* What is told of lies within these (an NTP time ends in 2156), so that sums of them fit. */
#define OFFSET_MAX_NS 6000000000000000000
#define ERROR_MAX_NS 1000000000000000000
#define MILLION 1000000

/* One end of a server's interval, or its middle (RFC 5905, 11.2.1). */
struct end {
    int64_t at_ns;
    int kind; /* -1 where it begins, 0 in the middle, 1 where it ends */
};

static int by_place(const void *left, const void *right) {
    const struct end *a = left, *b = right;
    if (a->at_ns != b->at_ns)
        return a->at_ns < b->at_ns ? -1 : 1;
    return a->kind - b->kind; /* intervals that only touch have a point in common */
}

static int by_value(const void *left, const void *right) {
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

/* The interval that begins where `wanted` intervals have begun and not ended, seen from below, and
 * ends likewise, seen from above. How many middles lie outside of it; -1 when there is none. */
static int common(const struct end *ends, size_t count, int wanted, int64_t *low, int64_t *high) {
    int depth = 0, outside = 0;
    size_t first = 0, last = count;
    for (; first < count && depth < wanted; first++) {
        depth -= ends[first].kind;
        outside += ends[first].kind == 0;
    }
    if (depth < wanted)
        return -1;
    *low = ends[first - 1].at_ns;
    for (depth = 0; last > 0 && depth < wanted; last--) {
        depth += ends[last - 1].kind;
        outside += ends[last - 1].kind == 0;
    }
    *high = ends[last].at_ns;
    return *low <= *high ? outside : -1;
}

/* As few liars as possible. Those whose middles lie outside count as such at first; two servers, of
 * which one is far away, agree only when that is not asked for. */
static bool agree(const struct end *ends, int servers, bool middles, int64_t *low, int64_t *high) {
    for (int liars = 0; 2 * liars < servers; liars++) {
        int outside = common(ends, 3 * (size_t)servers, servers - liars, low, high);
        if (outside >= 0 && (!middles || outside <= liars))
            return true;
    }
    return false;
}

static int64_t within(int64_t value, int64_t low, int64_t high) {
    return value < low ? low : value > high ? high : value;
}

int clock_select(const struct clock_view *views, size_t count, struct clock_view *out,
                 bool *agrees) {
    struct end ends[3 * CLOCK_SERVERS_MAX];
    int64_t offsets[CLOCK_SERVERS_MAX], low, high;
    size_t n = 0;
    if (count == 0 || count > CLOCK_SERVERS_MAX)
        return UV_EINVAL;
    for (size_t i = 0; i < count; i++) {
        int64_t middle = views[i].offset_ns, error = views[i].error_ns;
        if (error < 0 || error > ERROR_MAX_NS || middle < -OFFSET_MAX_NS || middle > OFFSET_MAX_NS)
            return UV_EINVAL;
        ends[n++] = (struct end){middle - error, -1};
        ends[n++] = (struct end){middle, 0};
        ends[n++] = (struct end){middle + error, 1};
    }
    qsort(ends, n, sizeof *ends, by_place);
    bool middles = agree(ends, (int)count, true, &low, &high);
    if (!middles && !agree(ends, (int)count, false, &low, &high))
        return UV_EPROTO;
    n = 0;
    for (size_t i = 0; i < count; i++) {
        int64_t middle = views[i].offset_ns, error = views[i].error_ns;
        agrees[i] = middle + error >= low && middle - error <= high;
        if (middles ? middle >= low && middle <= high : agrees[i])
            offsets[n++] = middle;
    }
    qsort(offsets, n, sizeof *offsets, by_value);
    int64_t lower = offsets[(n - 1) / 2], upper = offsets[n / 2];
    out->offset_ns = within(lower + (upper - lower) / 2, low, high);
    int64_t below = out->offset_ns - low, above = high - out->offset_ns;
    out->error_ns = below > above ? below : above;
    return 0;
}

void clock_set(struct clock *clock, const struct clock_view *view, int64_t steady_ns) {
    clock->view = *view;
    clock->set_at_ns = steady_ns;
    clock->set = true;
}

int64_t clock_now_ns(struct clock *clock, int64_t steady_ns, int64_t machine_ns) {
    int64_t now = clock->set ? steady_ns + clock->view.offset_ns : machine_ns;
    if (now < clock->told_ns && clock->told_ns - now < CLOCK_HOLD_NS)
        return clock->told_ns;
    return clock->told_ns = now;
}

int64_t clock_error_ns(const struct clock *clock, int64_t steady_ns) {
    if (!clock->set)
        return INT64_MAX;
    return clock->view.error_ns + (steady_ns - clock->set_at_ns) / MILLION * CLOCK_DRIFT_PPM;
}

static int64_t read_clock(clockid_t id) {
    struct timespec now;
    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t clock_steady_ns(void) {
    return read_clock(CLOCK_BOOTTIME);
}

int64_t clock_machine_ns(void) {
    return read_clock(CLOCK_REALTIME);
}
