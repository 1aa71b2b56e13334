#include "core/router.h"
#include "core/err.h"
#include "core/loop.h"
#include "core/wire.h"

#include <stdlib.h>
#include <sys/timerfd.h>
#include <unistd.h>

struct router {
    struct wire *wire;
    struct traffic *traffic;
    uv_poll_t timer;
    int timer_fd;
    uint64_t armed_ns; /* what the timer waits for; 0: nothing */
};

static uint64_t clock_ns(void) {
    return uv_hrtime(); /* CLOCK_MONOTONIC, as the timer's */
}

/* --- frames and time ----------------------------------------------------------------------- */

static void send_frame(void *arg, const uint8_t *frame, size_t length) {
    struct router *router = arg;
    wire_send(router->wire, frame, length);
}

static void arm(struct router *router) {
    uint64_t due_ns = traffic_next_due(router->traffic);
    if (due_ns == UINT64_MAX)
        due_ns = 0; /* disarms */
    if (due_ns == router->armed_ns)
        return;
    const struct itimerspec at = {
        .it_value = {(time_t)(due_ns / 1000000000), (long)(due_ns % 1000000000)}};
    timerfd_settime(router->timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
    router->armed_ns = due_ns;
}

static void go_on(struct router *router) {
    traffic_advance(router->traffic, clock_ns());
    wire_flush(router->wire);
    arm(router);
}

static void on_frames(void *arg, const struct wire_frame *frames, size_t count) {
    struct router *router = arg;
    uint64_t now_ns = clock_ns();
    for (size_t i = 0; i < count; i++)
        traffic_receive(router->traffic, now_ns, frames[i].bytes, frames[i].length);
    go_on(router);
}

static void on_timer(uv_poll_t *poll, int status, int events) {
    struct router *router = container_of(poll, struct router, timer);
    uint64_t expirations;
    (void)status;
    (void)events;
    if (read(router->timer_fd, &expirations, sizeof expirations) < 0)
        return; /* it was armed anew meanwhile */
    router->armed_ns = 0;
    go_on(router);
}

/* --- opening, closing ---------------------------------------------------------------------- */

static void release(struct router *router) {
    if (router->timer_fd >= 0)
        close(router->timer_fd);
    traffic_free(router->traffic);
    free(router);
}

static void on_timer_closed(uv_handle_t *handle) {
    release(container_of(handle, struct router, timer));
}

int router_open(uv_loop_t *loop, const char *device, const char *kernel_device, uint64_t seed,
                struct router **out) {
    struct router *router = calloc(1, sizeof *router);
    if (!router)
        return UV_ENOMEM;
    router->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    int status = router->timer_fd < 0 ? -errno : 0;
    if (status == 0)
        status = traffic_new(seed, send_frame, router, &router->traffic);
    if (status == 0 && kernel_device)
        status = wire_make_plain(kernel_device);
    if (status == 0)
        status = wire_open(loop, device, on_frames, router, &router->wire);
    if (status == 0) {
        status = uv_poll_init(loop, &router->timer, router->timer_fd);
        if (status != 0)
            wire_close(router->wire);
    }
    if (status != 0) {
        release(router);
        return status;
    }
    uv_poll_start(&router->timer, UV_READABLE, on_timer);
    *out = router;
    return 0;
}

void router_close(struct router *router) {
    wire_close(router->wire);
    uv_close((uv_handle_t *)&router->timer, on_timer_closed);
}

/* --- what it does -------------------------------------------------------------------------- */

int router_configure(struct router *router, const struct router_config *config, bool flush) {
    int status = traffic_configure(router->traffic, config, flush);
    arm(router);
    return status;
}

void router_stats(struct router *router, struct router_stats *out) {
    struct wire_stats wire;
    wire_stats(router->wire, &wire);
    traffic_stats(router->traffic, clock_ns(), out);
    out->overrun = wire.overrun;
    out->too_long = wire.too_long;
    out->unsent = wire.unsent;
}

const struct router_event *router_next_event(const struct router *router, uint64_t since) {
    return traffic_next_event(router->traffic, since);
}
