/* until: the loop of a C test, which runs until something holds.
 *
 * Provides  loop, open_loop, close_loop, RUN_UNTIL, UNTIL
 * Uses      libuv, spec/c/check */
#ifndef SPEC_C_UNTIL_H
#define SPEC_C_UNTIL_H

#include "spec/c/check.h"

#include <uv.h>

#define PATIENCE_MS 10000
#define LOOK_MS 5

static uv_loop_t loop;
static uv_timer_t guard;

static void on_guard(uv_timer_t *timer) {
    (void)timer;
}

static inline void open_loop(void) {
    uv_loop_init(&loop);
    uv_timer_init(&loop, &guard);
}

/* Runs the loop until it ends by itself. 0, or UV_EBUSY: handles were left open. */
static inline int close_loop(void) {
    uv_close((uv_handle_t *)&guard, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    return uv_loop_close(&loop);
}

/* Runs the loop until the condition holds, or for `ms`. */
#define RUN_UNTIL(condition, ms)                                                                   \
    do {                                                                                           \
        uv_update_time(&loop);                                                                     \
        uint64_t limit_ = uv_now(&loop) + (ms);                                                    \
        uv_timer_start(&guard, on_guard, LOOK_MS, LOOK_MS);                                        \
        while (!(condition) && uv_now(&loop) < limit_)                                             \
            uv_run(&loop, UV_RUN_ONCE);                                                            \
        uv_timer_stop(&guard);                                                                     \
    } while (0)

/* One that never holds is a failure, not a hang. */
#define UNTIL(condition)                                                                           \
    do {                                                                                           \
        RUN_UNTIL(condition, PATIENCE_MS);                                                         \
        CHECK(condition);                                                                          \
    } while (0)

#endif
