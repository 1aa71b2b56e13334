#include "core/router_traffic.h"
#include "core/bytes.h"
#include "core/err.h"
#include "core/frame.h"
#include "core/packet.h"

#include <linux/if_ether.h>
#include <stdlib.h>
#include <string.h>

enum { IPV4, IPV6 };

struct traffic {
    traffic_cb send;
    void *arg;
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

/* --- remembering --------------------------------------------------------------------------- */

static bool is_routine(const struct router_event *event) {
    return event->readable && event->before.protocol == NAT_TCP && !event->error &&
           event->verdict == NAT_PASS && event->reason != ROUTER_MAPPED_NEW &&
           !(event->before.tcp_flags & (NAT_SYN | NAT_FIN | NAT_RST)) &&
           (!event->linked || event->fate == LINK_QUEUED);
}

static void remember(struct traffic *traffic, const struct passage *passage) {
    if (is_routine(&passage->event))
        return;
    uint64_t number = ++traffic->stats.events;
    struct router_event *event = &traffic->events[number % ROUTER_EVENTS];
    *event = passage->event;
    event->number = number;
    event->at_ns = passage->now_ns;
}

const struct router_event *traffic_next_event(const struct traffic *traffic, uint64_t since) {
    uint64_t last = traffic->stats.events;
    if (since >= last)
        return NULL;
    if (last - since > ROUTER_EVENTS)
        since = last - ROUTER_EVENTS;
    return &traffic->events[(since + 1) % ROUTER_EVENTS];
}

/* --- passing on ---------------------------------------------------------------------------- */

/* The kernel's end sees the frame come from where it had sent it to (IEEE 802.3, 3.1.1). */
static void transmit(struct traffic *traffic, enum router_direction direction, uint8_t *frame,
                     size_t length) {
    uint8_t swap[6];
    memcpy(swap, frame, 6);
    memcpy(frame, frame + 6, 6);
    memcpy(frame + 6, swap, 6);
    packet_raise_hops(frame + FRAME_HEADER_SIZE, length - FRAME_HEADER_SIZE);
    traffic->stats.flow[direction].passed++;
    traffic->stats.flow[direction].passed_bytes += length - FRAME_HEADER_SIZE;
    traffic->send(traffic->arg, frame, length);
}

static void drop(struct traffic *traffic, enum router_reason reason) {
    traffic->stats.dropped[reason]++;
}

/* Whether it will arrive. */
static bool push(struct traffic *traffic, enum router_direction direction,
                 struct passage *passage) {
    enum link_fate fate =
        link_push(traffic->links[direction], passage->now_ns, passage->bytes, passage->length);
    traffic->stats.flow[direction].fates[fate]++;
    passage->event.linked = true;
    passage->event.fate = fate;
    return fate != LINK_LOST && fate != LINK_FULL && fate != LINK_DOWN;
}

/* --- deciding ------------------------------------------------------------------------------ */

static bool is_inside(const struct traffic *traffic, const struct ip *ip) {
    for (unsigned i = 0; i < traffic->config.inside_count; i++) {
        const struct router_prefix *prefix = &traffic->config.inside[i];
        if (prefix->ip.family == ip->family && ip_same_prefix(&prefix->ip, ip, prefix->bits))
            return true;
    }
    return false;
}

static struct nat_model *model_for(const struct traffic *traffic, const struct packet *packet) {
    return traffic->models[packet->source.family == 4 ? IPV4 : IPV6];
}

static uint64_t ms(const struct passage *passage) {
    return passage->now_ns / 1000000;
}

/* Fills in what can be known of the packet; returns packet_parse's status. */
static int look_at(struct passage *passage) {
    uint8_t *bytes = passage->bytes + FRAME_HEADER_SIZE;
    size_t length = passage->length - FRAME_HEADER_SIZE;
    struct router_event *event = &passage->event;
    int status = packet_parse(bytes, length, &passage->packet);
    event->readable = status == 0;
    if (event->readable) {
        event->before = passage->packet.flow;
        event->error = passage->packet.error;
    } else {
        packet_addresses(bytes, length, &event->before.source, &event->before.destination);
    }
    event->after = event->before;
    return status;
}

static enum nat_verdict refuse(struct passage *passage, enum router_reason reason) {
    passage->event.reason = reason;
    passage->event.after = passage->event.before;
    return NAT_DROP;
}

static void rewrite(struct passage *passage, const struct nat_packet *flow) {
    packet_rewrite(&passage->packet, flow);
    passage->event.after = *flow;
}

/* RFC 5508, 4: the error follows the packet that it quotes; REQ-7: also back inside. */
static enum nat_verdict pass_error(struct traffic *traffic, struct passage *passage, bool inbound) {
    struct packet *packet = &passage->packet;
    struct nat_packet flow = packet->flow;
    if (nat_model_error(model_for(traffic, packet), ms(passage), inbound, &flow) != NAT_PASS)
        return refuse(passage, ROUTER_UNKNOWN_ERROR);
    rewrite(passage, &flow);
    passage->event.reason = ROUTER_MAPPED;
    if (inbound || !nat_is_external(&traffic->config.ipv4, &packet->destination))
        return NAT_PASS;
    return pass_error(traffic, passage, true) == NAT_PASS ? NAT_HAIRPIN : NAT_DROP;
}

static enum nat_verdict pass_flow(struct traffic *traffic, struct passage *passage, bool inbound) {
    struct nat_packet flow = passage->packet.flow;
    struct nat_model *model = model_for(traffic, &passage->packet);
    enum nat_reason reason = NAT_UNTRANSLATED;
    enum nat_verdict verdict = inbound ? nat_model_in(model, ms(passage), &flow, &reason)
                                       : nat_model_out(model, ms(passage), &flow, &reason);
    passage->event.reason = (enum router_reason)reason;
    if (verdict == NAT_PASS || verdict == NAT_HAIRPIN)
        rewrite(passage, &flow);
    return verdict;
}

static enum nat_verdict decide(struct traffic *traffic, struct passage *passage, bool inbound) {
    const struct packet *packet = &passage->packet;
    int status = look_at(passage);
    if (status != 0)
        return refuse(passage, status == UV_ENOTSUP ? ROUTER_UNSUPPORTED : ROUTER_UNREADABLE);
    if (packet->source.family == 6 && traffic->config.no_ipv6)
        return refuse(passage, ROUTER_NO_IPV6);
    enum nat_verdict verdict = packet->error ? pass_error(traffic, passage, inbound)
                                             : pass_flow(traffic, passage, inbound);
    if (inbound && verdict == NAT_PASS && !is_inside(traffic, &packet->destination))
        return refuse(passage, ROUTER_STRAY);
    return verdict;
}

/* Puts the answer in the packet's place; false when there is none. */
static bool answer(struct traffic *traffic, struct passage *passage, enum nat_verdict verdict,
                   uint8_t frame[FRAME_SIZE]) {
    uint8_t *out = frame + FRAME_HEADER_SIZE;
    bool reset = verdict == NAT_ANSWER_RESET;
    size_t length =
        reset ? packet_reset(&passage->packet, out) : packet_unreachable(&passage->packet, out);
    if (length == 0)
        return false;
    reset ? traffic->stats.resets++ : traffic->stats.unreachables++;
    memcpy(frame, passage->bytes, FRAME_HEADER_SIZE);
    passage->bytes = frame;
    passage->length = FRAME_HEADER_SIZE + length;
    return true;
}

static void handle(struct traffic *traffic, struct passage *passage, bool inbound) {
    uint8_t frame[FRAME_SIZE];
    passage->event.direction = inbound ? ROUTER_IN : ROUTER_OUT;
    enum nat_verdict verdict = passage->event.verdict = decide(traffic, passage, inbound);
    switch (verdict) {
    case NAT_PASS:
        if (inbound)
            transmit(traffic, ROUTER_IN, passage->bytes, passage->length);
        else if (!push(traffic, ROUTER_OUT, passage))
            drop(traffic, ROUTER_LINK);
        break;
    case NAT_HAIRPIN:
        traffic->stats.hairpins++;
        transmit(traffic, ROUTER_IN, passage->bytes, passage->length);
        break;
    case NAT_DROP:
        drop(traffic, passage->event.reason);
        break;
    case NAT_ANSWER_RESET:
    case NAT_ANSWER_UNREACHABLE:
        drop(traffic, passage->event.reason);
        if (!answer(traffic, passage, verdict, frame))
            break;
        if (inbound)
            push(traffic, ROUTER_OUT, passage);
        else
            transmit(traffic, ROUTER_IN, passage->bytes, passage->length);
        break;
    }
    remember(traffic, passage);
}

/* --- coming in ----------------------------------------------------------------------------- */

static bool is_bypass(const uint8_t *frame) {
    return frame[5] == ROUTER_BYPASS;
}

static bool is_ip(const uint8_t *frame, size_t length) {
    if (length < FRAME_HEADER_SIZE || length > FRAME_SIZE)
        return false;
    uint16_t type = get_u16(frame + 12);
    return type == ETH_P_IP || type == ETH_P_IPV6;
}

/* Remembers a packet that no model was asked about. */
static void witness(struct traffic *traffic, struct passage *passage, bool inbound,
                    enum nat_verdict verdict, enum router_reason reason) {
    look_at(passage);
    passage->event.direction = inbound ? ROUTER_IN : ROUTER_OUT;
    passage->event.verdict = verdict;
    passage->event.reason = reason;
    remember(traffic, passage);
}

/* What the NAT never sees: what is lost on its way in, and what is translated already. */
static void begin(struct traffic *traffic, struct passage *passage, bool inbound) {
    bool arrives = push(traffic, inbound ? ROUTER_IN : ROUTER_OUT, passage);
    if (!arrives)
        drop(traffic, ROUTER_LINK);
    if (!inbound)
        witness(traffic, passage, false, NAT_PASS, ROUTER_MAPPED_BEFORE);
    else if (!arrives)
        witness(traffic, passage, true, NAT_DROP, ROUTER_LINK);
}

void traffic_receive(struct traffic *traffic, uint64_t now_ns, uint8_t *frame, size_t length) {
    struct passage passage = {.bytes = frame, .length = length, .now_ns = now_ns};
    struct ip source = {0}, destination = {0};
    if (!traffic->models[IPV4] || !is_ip(frame, length))
        return;
    if (packet_addresses(frame + FRAME_HEADER_SIZE, length - FRAME_HEADER_SIZE, &source,
                         &destination) &&
        (ip_kind(&destination) == IP_MULTICAST || ip_kind(&source) == IP_LINK_LOCAL))
        return; /* what the kernel itself says on the pair */
    bool bypass = is_bypass(frame), outbound = is_inside(traffic, &source);
    if (bypass && !outbound) /* a mapped source is an external address by now */
        outbound = !is_inside(traffic, &destination);
    struct router_flow *flow = &traffic->stats.flow[outbound ? ROUTER_OUT : ROUTER_IN];
    flow->packets++;
    flow->bytes += length - FRAME_HEADER_SIZE;
    if (outbound && !bypass)
        handle(traffic, &passage, false);
    else
        begin(traffic, &passage, !outbound);
}

/* What has come over the inward link. */
static void arrive(struct traffic *traffic, uint64_t now_ns, const struct link_packet *packet) {
    struct passage passage = {.bytes = packet->bytes, .length = packet->length, .now_ns = now_ns};
    passage.event.linked = true;
    passage.event.fate = packet->fate;
    if (is_bypass(packet->bytes)) {
        witness(traffic, &passage, true, NAT_PASS, ROUTER_MAPPED_BEFORE);
        transmit(traffic, ROUTER_IN, packet->bytes, packet->length);
    } else {
        handle(traffic, &passage, true);
    }
}

/* Inward first: its answers go outward. */
void traffic_advance(struct traffic *traffic, uint64_t now_ns) {
    struct link_packet packet;
    while (link_pop(traffic->links[ROUTER_IN], now_ns, &packet))
        arrive(traffic, now_ns, &packet);
    while (link_pop(traffic->links[ROUTER_OUT], now_ns, &packet))
        transmit(traffic, ROUTER_OUT, packet.bytes, packet.length);
}

uint64_t traffic_next_due(const struct traffic *traffic) {
    uint64_t out_ns = link_next_due(traffic->links[ROUTER_OUT]);
    uint64_t in_ns = link_next_due(traffic->links[ROUTER_IN]);
    return out_ns < in_ns ? out_ns : in_ns;
}

/* --- making, configuring ------------------------------------------------------------------- */

int traffic_new(uint64_t seed, traffic_cb send, void *arg, struct traffic **out) {
    struct traffic *traffic = calloc(1, sizeof *traffic);
    if (!traffic)
        return UV_ENOMEM;
    traffic->send = send;
    traffic->arg = arg;
    traffic->seed = seed;
    for (unsigned i = 0; i < 2; i++)
        if (link_new(seed + 1 + i, &traffic->links[i]) != 0) {
            traffic_free(traffic);
            return UV_ENOMEM;
        }
    *out = traffic;
    return 0;
}

void traffic_free(struct traffic *traffic) {
    if (!traffic)
        return;
    for (int i = 0; i < 2; i++) {
        nat_model_free(traffic->models[i]);
        link_free(traffic->links[i]);
    }
    free(traffic);
}

static int first_models(struct traffic *traffic, const struct router_config *config) {
    struct nat_model **models = traffic->models;
    int status = nat_model_new(&config->ipv4, traffic->seed, &models[IPV4]);
    if (status == 0)
        status = nat_model_new(&config->ipv6, traffic->seed, &models[IPV6]);
    if (status != 0) {
        nat_model_free(models[IPV4]);
        models[IPV4] = NULL;
    }
    return status;
}

int traffic_configure(struct traffic *traffic, const struct router_config *config, bool flush) {
    int status = nat_config_check(&config->ipv4);
    if (status == 0)
        status = nat_config_check(&config->ipv6);
    if (status == 0 && !traffic->models[IPV4])
        status = first_models(traffic, config);
    if (status != 0)
        return status;
    traffic->config = *config;
    nat_model_configure(traffic->models[IPV4], &config->ipv4, flush);
    nat_model_configure(traffic->models[IPV6], &config->ipv6, flush);
    for (int i = 0; i < 2; i++)
        link_configure(traffic->links[i], &config->link[i]);
    return 0;
}

void traffic_stats(struct traffic *traffic, uint64_t now_ns, struct router_stats *out) {
    uint64_t now_ms = now_ns / 1000000;
    *out = traffic->stats;
    out->on_link = link_count(traffic->links[ROUTER_OUT]) + link_count(traffic->links[ROUTER_IN]);
    if (!traffic->models[IPV4])
        return;
    out->mappings = nat_model_mappings(traffic->models[IPV4], now_ms);
    out->mappings_ipv6 = nat_model_mappings(traffic->models[IPV6], now_ms);
}
