#include "core/router.h"
#include "core/bytes.h"
#include "core/err.h"
#include "core/loop.h"
#include "core/packet.h"
#include "core/wire.h"

#include <linux/if_ether.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { IPV4, IPV6 };
enum { FIN = 1, SYN = 2, RST = 4 }; /* RFC 9293, 3.1 */

struct router {
    struct wire *wire;
    uv_poll_t timer;
    int timer_fd;
    uint64_t armed_ns;           /* what the timer waits for; 0: nothing */
    struct nat_model *models[2]; /* by version; NULL until it is configured */
    struct link *links[2];       /* by direction */
    struct router_config config;
    struct router_stats stats;
    uint64_t seed;
    struct router_event events[ROUTER_EVENTS]; /* number n lies at n modulo their count */
};

/* A frame on its way through, with what was decided so far. */
struct passage {
    uint8_t *bytes;
    size_t length;
    uint64_t now_ns;
    struct packet packet;
    struct router_event event;
};

static uint64_t clock_ns(void) {
    return uv_hrtime(); /* CLOCK_MONOTONIC, as the timer's */
}

/* --- remembering --------------------------------------------------------------------------- */

static bool is_routine(const struct router_event *event) {
    return event->before.protocol == NAT_TCP && !event->error && event->verdict == NAT_PASS &&
           event->reason != NAT_MAPPED_NEW && !(event->before.tcp_flags & (SYN | FIN | RST)) &&
           (event->fate == LINK_QUEUED || event->fate == ROUTER_NO_FATE);
}

static void remember(struct router *router, const struct passage *passage) {
    if (is_routine(&passage->event))
        return;
    uint64_t number = ++router->stats.events;
    struct router_event *event = &router->events[number % ROUTER_EVENTS];
    *event = passage->event;
    event->number = number;
    event->at_ns = passage->now_ns;
}

const struct router_event *router_next_event(const struct router *router, uint64_t since) {
    uint64_t last = router->stats.events;
    if (since >= last)
        return NULL;
    if (last - since > ROUTER_EVENTS)
        since = last - ROUTER_EVENTS;
    return &router->events[(since + 1) % ROUTER_EVENTS];
}

/* --- writing back -------------------------------------------------------------------------- */

/* The kernel's end sees the frame come from where it had sent it to (IEEE 802.3, 3.1.1). */
static void transmit(struct router *router, enum router_direction direction, uint8_t *frame,
                     size_t length) {
    uint8_t swap[6];
    memcpy(swap, frame, 6);
    memcpy(frame, frame + 6, 6);
    memcpy(frame + 6, swap, 6);
    packet_raise_hops(frame + WIRE_HEADER_SIZE, length - WIRE_HEADER_SIZE);
    wire_send(router->wire, frame, length);
    router->stats.flow[direction].passed++;
    router->stats.flow[direction].passed_bytes += length - WIRE_HEADER_SIZE;
}

static bool push(struct router *router, enum router_direction direction, struct passage *passage) {
    enum link_fate fate =
        link_push(router->links[direction], passage->now_ns, passage->bytes, passage->length);
    router->stats.flow[direction].fates[fate]++;
    passage->event.fate = fate;
    if (fate != LINK_LOST && fate != LINK_FULL && fate != LINK_DOWN)
        return true;
    router->stats.dropped[ROUTER_LINK]++;
    return false;
}

/* --- deciding ------------------------------------------------------------------------------ */

static bool is_inside(const struct router *router, const struct ip *ip) {
    for (unsigned i = 0; i < router->config.inside_count; i++) {
        const struct router_prefix *prefix = &router->config.inside[i];
        if (prefix->ip.family == ip->family && ip_same_prefix(&prefix->ip, ip, prefix->bits))
            return true;
    }
    return false;
}

static struct nat_model *model_for(const struct router *router, const struct packet *packet) {
    return router->models[packet->source.family == 4 ? IPV4 : IPV6];
}

/* Whether the destination is one of the router's own addresses, so that the way back in follows. */
static bool turns_back(const struct router *router, const struct packet *packet) {
    for (unsigned i = 0; i < router->config.ipv4.external_count; i++)
        if (ip_equal(&router->config.ipv4.external[i], &packet->destination))
            return true;
    return false;
}

/* RFC 5508, 4: the error follows the packet that it quotes. */
static enum nat_verdict pass_error(struct router *router, struct passage *passage, bool inbound) {
    struct nat_packet flow = passage->packet.flow;
    struct nat_model *model = model_for(router, &passage->packet);
    passage->event.error = true;
    passage->event.reason = NAT_MAPPED;
    if (nat_model_error(model, passage->now_ns / 1000000, inbound, &flow) != NAT_PASS) {
        passage->event.reason = ROUTER_UNKNOWN_ERROR;
        return NAT_DROP;
    }
    packet_rewrite(&passage->packet, &flow);
    passage->event.after = flow;
    if (inbound || !turns_back(router, &passage->packet))
        return NAT_PASS;
    return pass_error(router, passage, true) == NAT_PASS ? NAT_HAIRPIN : NAT_DROP;
}

static enum nat_verdict pass_flow(struct router *router, struct passage *passage, bool inbound) {
    struct nat_packet flow = passage->packet.flow;
    struct nat_model *model = model_for(router, &passage->packet);
    uint64_t now_ms = passage->now_ns / 1000000;
    enum nat_reason reason = NAT_UNTRANSLATED;
    enum nat_verdict verdict = inbound ? nat_model_in(model, now_ms, &flow, &reason)
                                       : nat_model_out(model, now_ms, &flow, &reason);
    passage->event.reason = (int)reason;
    if (verdict == NAT_PASS || verdict == NAT_HAIRPIN) {
        packet_rewrite(&passage->packet, &flow);
        passage->event.after = flow;
    }
    return verdict;
}

static enum nat_verdict decide(struct router *router, struct passage *passage, bool inbound) {
    struct packet *packet = &passage->packet;
    int status =
        packet_parse(passage->bytes + WIRE_HEADER_SIZE, passage->length - WIRE_HEADER_SIZE, packet);
    if (status != 0) {
        packet_addresses(passage->bytes + WIRE_HEADER_SIZE, passage->length - WIRE_HEADER_SIZE,
                         &passage->event.before.source, &passage->event.before.destination);
        passage->event.reason = status == UV_ENOTSUP ? ROUTER_UNSUPPORTED : ROUTER_UNREADABLE;
        return NAT_DROP;
    }
    passage->event.before = passage->event.after = packet->flow;
    if (packet->source.family == 6 && router->config.no_ipv6) {
        passage->event.reason = ROUTER_NO_IPV6;
        return NAT_DROP;
    }
    enum nat_verdict verdict =
        packet->error ? pass_error(router, passage, inbound) : pass_flow(router, passage, inbound);
    if (inbound && verdict == NAT_PASS && !is_inside(router, &packet->destination)) {
        passage->event.reason = ROUTER_STRAY;
        return NAT_DROP;
    }
    return verdict;
}

/* Puts the answer in the packet's place; false when there is none. */
static bool answer(struct router *router, struct passage *passage, enum nat_verdict verdict,
                   uint8_t frame[WIRE_FRAME_SIZE]) {
    uint8_t *out = frame + WIRE_HEADER_SIZE;
    bool reset = verdict == NAT_ANSWER_RESET;
    size_t length =
        reset ? packet_reset(&passage->packet, out) : packet_unreachable(&passage->packet, out);
    if (length == 0)
        return false;
    reset ? router->stats.resets++ : router->stats.unreachables++;
    memcpy(frame, passage->bytes, WIRE_HEADER_SIZE);
    passage->bytes = frame;
    passage->length = WIRE_HEADER_SIZE + length;
    return true;
}

static void handle(struct router *router, struct passage *passage, bool inbound) {
    uint8_t frame[WIRE_FRAME_SIZE];
    enum router_direction direction = inbound ? ROUTER_IN : ROUTER_OUT;
    passage->event.direction = direction;
    enum nat_verdict verdict = passage->event.verdict = decide(router, passage, inbound);
    switch (verdict) {
    case NAT_PASS:
        if (inbound)
            transmit(router, ROUTER_IN, passage->bytes, passage->length);
        else
            push(router, ROUTER_OUT, passage);
        break;
    case NAT_HAIRPIN:
        router->stats.hairpins++;
        transmit(router, ROUTER_IN, passage->bytes, passage->length);
        break;
    case NAT_DROP:
        router->stats.dropped[passage->event.reason]++;
        break;
    case NAT_ANSWER_RESET:
    case NAT_ANSWER_UNREACHABLE:
        router->stats.dropped[passage->event.reason]++;
        if (!answer(router, passage, verdict, frame))
            break;
        if (inbound)
            push(router, ROUTER_OUT, passage);
        else
            transmit(router, ROUTER_IN, passage->bytes, passage->length);
        break;
    }
    remember(router, passage);
}

/* --- coming in ----------------------------------------------------------------------------- */

static bool is_bypass(const uint8_t *frame) {
    return frame[5] == ROUTER_BYPASS;
}

static bool is_ip(const uint8_t *frame, size_t length) {
    if (length < WIRE_HEADER_SIZE)
        return false;
    uint16_t type = get_u16(frame + 12);
    return type == ETH_P_IP || type == ETH_P_IPV6;
}

/* Remembers a packet that no model was asked about. */
static void witness(struct router *router, struct passage *passage, bool inbound,
                    enum nat_verdict verdict, enum router_reason reason) {
    if (packet_parse(passage->bytes + WIRE_HEADER_SIZE, passage->length - WIRE_HEADER_SIZE,
                     &passage->packet) == 0) {
        passage->event.before = passage->event.after = passage->packet.flow;
        passage->event.error = passage->packet.error;
    }
    passage->event.direction = inbound ? ROUTER_IN : ROUTER_OUT;
    passage->event.verdict = verdict;
    passage->event.reason = (int)reason;
    remember(router, passage);
}

static void receive(struct router *router, const struct wire_frame *frame, uint64_t now_ns) {
    struct passage passage = {.bytes = frame->bytes, .length = frame->length, .now_ns = now_ns};
    passage.event.fate = ROUTER_NO_FATE;
    struct ip source, destination;
    if (!router->models[IPV4] || !is_ip(frame->bytes, frame->length))
        return;
    if (!packet_addresses(frame->bytes + WIRE_HEADER_SIZE, frame->length - WIRE_HEADER_SIZE,
                          &source, &destination)) {
        router->stats.dropped[ROUTER_UNREADABLE]++;
        return;
    }
    if (ip_kind(&destination) == IP_MULTICAST || ip_kind(&source) == IP_LINK_LOCAL)
        return; /* what the kernel itself says on the pair */
    bool bypass = is_bypass(frame->bytes), outbound = is_inside(router, &source);
    if (bypass && !outbound) /* a mapped source is an external address by now */
        outbound = !is_inside(router, &destination);
    struct router_flow *flow = &router->stats.flow[outbound ? ROUTER_OUT : ROUTER_IN];
    flow->packets++;
    flow->bytes += frame->length - WIRE_HEADER_SIZE;
    if (outbound && !bypass) {
        handle(router, &passage, false);
    } else if (outbound) {
        push(router, ROUTER_OUT, &passage);
        witness(router, &passage, false, NAT_PASS, ROUTER_MAPPED_BEFORE);
    } else if (!push(router, ROUTER_IN, &passage)) {
        witness(router, &passage, true, NAT_DROP, ROUTER_LINK); /* the NAT never sees it */
    }
}

/* What has come over the inward link. */
static void arrive(struct router *router, uint8_t *bytes, size_t length, uint64_t now_ns) {
    struct passage passage = {.bytes = bytes, .length = length, .now_ns = now_ns};
    passage.event.fate = LINK_QUEUED;
    if (is_bypass(bytes)) {
        witness(router, &passage, true, NAT_PASS, ROUTER_MAPPED_BEFORE);
        transmit(router, ROUTER_IN, bytes, length);
    } else {
        handle(router, &passage, true);
    }
}

static void arm(struct router *router) {
    uint64_t out_ns = link_next_due(router->links[ROUTER_OUT]);
    uint64_t in_ns = link_next_due(router->links[ROUTER_IN]);
    uint64_t due_ns = out_ns < in_ns ? out_ns : in_ns;
    if (due_ns == UINT64_MAX)
        due_ns = 0; /* disarms */
    if (due_ns == router->armed_ns)
        return;
    const struct itimerspec at = {
        .it_value = {(time_t)(due_ns / 1000000000), (long)(due_ns % 1000000000)}};
    timerfd_settime(router->timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
    router->armed_ns = due_ns;
}

/* Lets go on what is due, inward first: its answers go outward. */
static void pump(struct router *router) {
    uint64_t now_ns = clock_ns();
    size_t length;
    for (uint8_t *bytes; (bytes = link_pop(router->links[ROUTER_IN], now_ns, &length));)
        arrive(router, bytes, length, now_ns);
    for (uint8_t *bytes; (bytes = link_pop(router->links[ROUTER_OUT], now_ns, &length));)
        transmit(router, ROUTER_OUT, bytes, length);
    wire_flush(router->wire);
    arm(router);
}

static void on_frames(void *arg, const struct wire_frame *frames, size_t count) {
    struct router *router = arg;
    uint64_t now_ns = clock_ns();
    for (size_t i = 0; i < count; i++)
        receive(router, &frames[i], now_ns);
    pump(router);
}

static void on_timer(uv_poll_t *poll, int status, int events) {
    struct router *router = container_of(poll, struct router, timer);
    uint64_t expirations;
    (void)status;
    (void)events;
    if (read(router->timer_fd, &expirations, sizeof expirations) < 0)
        return; /* it was armed anew meanwhile */
    router->armed_ns = 0;
    pump(router);
}

/* --- opening, configuring, closing --------------------------------------------------------- */

static void release(struct router *router) {
    if (router->timer_fd >= 0)
        close(router->timer_fd);
    for (int i = 0; i < 2; i++) {
        nat_model_free(router->models[i]);
        link_free(router->links[i]);
    }
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
    router->seed = seed;
    router->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    int status = router->timer_fd < 0 ? -errno : 0;
    for (unsigned i = 0; i < 2 && status == 0; i++)
        status = link_new(seed + 1 + i, &router->links[i]);
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

static int first_models(struct router *router, const struct router_config *config) {
    int status = nat_model_new(&config->ipv4, router->seed, &router->models[IPV4]);
    if (status == 0)
        status = nat_model_new(&config->ipv6, router->seed, &router->models[IPV6]);
    if (status != 0) {
        nat_model_free(router->models[IPV4]);
        router->models[IPV4] = NULL;
    }
    return status;
}

int router_configure(struct router *router, const struct router_config *config, bool flush) {
    int status = nat_config_check(&config->ipv4);
    if (status == 0)
        status = nat_config_check(&config->ipv6);
    if (status == 0 && !router->models[IPV4])
        status = first_models(router, config);
    if (status != 0)
        return status;
    router->config = *config;
    nat_model_configure(router->models[IPV4], &config->ipv4, flush);
    nat_model_configure(router->models[IPV6], &config->ipv6, flush);
    for (int i = 0; i < 2; i++)
        link_configure(router->links[i], &config->link[i]);
    arm(router);
    return 0;
}

void router_flush(struct router *router) {
    if (!router->models[IPV4])
        return;
    nat_model_configure(router->models[IPV4], &router->config.ipv4, true);
    nat_model_configure(router->models[IPV6], &router->config.ipv6, true);
    for (int i = 0; i < 2; i++)
        link_flush(router->links[i]);
    arm(router);
}

void router_stats(struct router *router, struct router_stats *out) {
    struct wire_stats wire;
    uint64_t now_ms = clock_ns() / 1000000;
    wire_stats(router->wire, &wire);
    *out = router->stats;
    out->overrun = wire.overrun;
    out->long_ = wire.long_;
    out->unsent = wire.unsent;
    out->on_link = link_count(router->links[ROUTER_OUT]) + link_count(router->links[ROUTER_IN]);
    if (!router->models[IPV4])
        return;
    out->mappings = nat_model_mappings(router->models[IPV4], now_ms);
    out->mappings_ipv6 = nat_model_mappings(router->models[IPV6], now_ms);
}
