/* Any frames at any times, good ones, answers to what has left, and raw bytes: checksums stay
 * right, no inside address leaves a router that translates, and each packet that came is accounted
 * for.
 *
 *   configuration, 8 bytes (see configure), then steps of 8 bytes (see step) */
#include "core/frame.h"
#include "core/packet.h"
#include "core/router_traffic.h"
#include "spec/c/packet_maker.h"

#define MUST(condition) ((condition) ? (void)0 : abort())
#define MS UINT64_C(1000000)

enum { CONFIG_SIZE = 8, STEP_SIZE = 8, STEPS_MAX = 256, TRANSLATE = 3, PORTS = 4 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static const char *const hosts[][2] = {{"192.168.1.10", "2c0f:30:3:1::10"},
                                       {"192.168.1.11", "2c0f:30:3:1::11"}};
static const char *const servers[][2] = {{"30.1.0.1", "2c0f:30:1::1"},
                                         {"30.1.0.2", "2c0f:30:1::2"}};

static struct traffic *traffic;
static struct router_config config;
static uint64_t now_ns, flushed;
static bool clean, translates; /* only good packets came; IPv4 is translated, all of it, always */

static uint8_t last[FRAME_SIZE]; /* the packet that left last */
static size_t last_length;

static bool is_inside(const struct ip *ip) {
    for (unsigned i = 0; i < config.inside_count; i++)
        if (config.inside[i].ip.family == ip->family &&
            ip_same_prefix(&config.inside[i].ip, ip, config.inside[i].bits))
            return true;
    return false;
}

static void on_frame(void *arg, const uint8_t *frame, size_t length) {
    struct packet packet;
    (void)arg;
    MUST(length >= FRAME_HEADER_SIZE && length <= FRAME_SIZE);
    last_length = length - FRAME_HEADER_SIZE;
    memcpy(last, frame + FRAME_HEADER_SIZE, last_length);
    if (packet_parse(last, last_length, &packet) != 0) {
        MUST(!clean || frame[11] == ROUTER_BYPASS);
        return;
    }
    if (clean)
        MUST(sealed(last, packet.length));
    if (frame[11] == ROUTER_BYPASS)
        return;
    if (!is_inside(&packet.destination))
        MUST(!translates || packet.source.family == 6 || !is_inside(&packet.source));
}

/* type and delta; uninvited and IPv6; noise and hairpin; links: loss, duplicates, order, delay,
 * rate */
static void configure(const uint8_t *bytes, bool first) {
    static const char *const types[] = {"full-cone", "restricted", "port-restricted",
                                        "symmetric", "blocked",    "udp-firewall",
                                        "open"};
    static const char *const deltas[] = {"equal", "preserving", "independent", "dependent",
                                         "random"};
    memset(&config, 0, sizeof config);
    unsigned type = bytes[0] % 7;
    if (nat_config_named(types[type], type < 5 ? deltas[bytes[0] / 7 % 5] : NULL, 1, &config.ipv4))
        abort();
    nat_config_firewall(bytes[1] / 3 % 2 ? NAT_FILTER_NONE : NAT_ADDRESS_AND_PORT_DEPENDENT,
                        &config.ipv6);
    for (int i = 0; i < NAT_PROTOCOLS; i++) {
        config.ipv4.protocols[i].uninvited = config.ipv6.protocols[i].uninvited = bytes[1] % 3;
        config.ipv4.protocols[i].first = LINK_QUEUE_PACKETS * 64;
        config.ipv4.protocols[i].last = (uint16_t)(config.ipv4.protocols[i].first + PORTS);
    }
    config.no_ipv6 = bytes[1] / 6 % 8 == 0;
    config.ipv4.external_count = 1;
    config.ipv4.external[0] = ip(external[0]);
    config.ipv4.hairpin = bytes[2] & 1;
    config.ipv4.noise = bytes[2] / 64;
    config.inside[0] = (struct router_prefix){ip("192.168.1.0"), 24};
    config.inside[1] = (struct router_prefix){ip("2c0f:30:3:1::"), 64};
    config.inside_count = 2;
    for (int i = 0; i < 2; i++)
        config.link[i] = (struct link_config){
            .loss = bytes[3 + i] % 4 / 8.0,
            .duplicate = bytes[3 + i] / 4 % 4 / 4.0,
            .reorder = bytes[3 + i] / 16 % 4 / 4.0,
            .delay_ns = bytes[5 + i] * MS,
            .jitter_ns = bytes[5 + i] % 4 * MS,
            .rate = bytes[7] % 4 == 0 ? 100000 : 0,
            .down = bytes[7] / 4 % 16 == 0,
        };
    translates = (first || translates) && type < 5;
    struct router_stats before, after;
    traffic_stats(traffic, now_ns, &before);
    MUST(traffic_configure(traffic, &config, bytes[7] & 128) == 0);
    traffic_stats(traffic, now_ns, &after);
    flushed += before.on_link - after.on_link;
}

static void receive(uint8_t to, const uint8_t *packet, size_t length) {
    uint8_t frame[FRAME_SIZE] = {2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, 1, 8, 0};
    if (length > FRAME_SIZE - FRAME_HEADER_SIZE)
        length = FRAME_SIZE - FRAME_HEADER_SIZE;
    if (length > 0)
        memcpy(frame + FRAME_HEADER_SIZE, packet, length);
    if (length > 0 && packet[0] >> 4 == 6)
        frame[12] = 0x86, frame[13] = 0xdd;
    traffic_receive(traffic, now_ns, frame, FRAME_HEADER_SIZE + length);
}

static void set_flags(uint8_t *packet, size_t length, uint8_t flags) {
    if (protocol_of(packet) != TCP)
        return;
    packet[header_size(packet) + 13] = flags & 0x17;
    seal(packet, length);
}

/* A new flow from inside or outside, or to a neighbour by the external address. */
static void begin(const uint8_t *bytes) {
    static const uint8_t protocols[][2] = {{UDP, UDP}, {TCP, TCP}, {ICMP, ICMPV6}};
    uint8_t packet[FRAME_SIZE];
    int version = bytes[2] & 1;
    bool out = bytes[0] & 1, hairpin = out && bytes[0] & 2 && version == 0;
    const char *host = hosts[bytes[2] / 2 % 2][version];
    const char *server = servers[bytes[2] / 4 % 2][version];
    const char *to = hairpin ? external[0] : out ? server : version == 0 ? external[0] : host;
    uint16_t first = config.ipv4.protocols[0].first;
    uint16_t local = (uint16_t)(first + bytes[3] % PORTS), remote = bytes[4] % PORTS;
    if (hairpin)
        remote = (uint16_t)(first + remote);
    size_t size = flow(packet, protocols[bytes[5] % 3][version], out ? host : server,
                       out ? local : remote, to, out ? remote : local, bytes[6]);
    set_flags(packet, size, bytes[7] & 32 ? SYN : bytes[7]);
    receive(bytes[7] & 64 && bytes[7] & 128 ? ROUTER_BYPASS : TRANSLATE, packet, size);
}

/* What has left last is answered, or told of in an error, by the one who got it or a hop before. */
static void reply(const uint8_t *bytes) {
    uint8_t packet[FRAME_SIZE];
    struct packet read;
    if (last_length == 0 || packet_parse(last, last_length, &read) != 0 || read.error ||
        last_length > 600)
        return;
    int version = read.source.family == 6;
    char from[IP_TEXT_SIZE], to[IP_TEXT_SIZE];
    ip_format(&read.destination, from);
    ip_format(&read.source, to);
    if (bytes[2] & 1) {
        size_t most = last_length - header_size(last) - 8;
        const char *teller = bytes[2] & 2 ? hop[version] : from;
        size_t size = error(packet, teller, to, last, last_length - bytes[3] % (most + 1));
        receive(TRANSLATE, packet, size);
        return;
    }
    size_t at = header_size(packet);
    size_t size = flow(packet, protocol_of(last), from, read.flow.destination_port, to,
                       read.flow.source_port, bytes[3]);
    at = header_size(packet);
    if (read.flow.protocol == NAT_ICMP) {
        packet[at] = version ? 129 : 0;
        put_u16(packet + at + 4, read.flow.source_port);
        seal(packet, size);
    }
    set_flags(packet, size, bytes[4]);
    receive(TRANSLATE, packet, size);
}

/* All packets: those that came and those that were made are those that left, or are on their way,
 * or are gone for a reason. */
static void account(void) {
    struct router_stats now;
    uint64_t came = 0, left = 0, lost = 0, dropped = 0;
    traffic_stats(traffic, now_ns, &now);
    for (int i = 0; i < 2; i++) {
        const uint64_t *fates = now.flow[i].fates;
        came += now.flow[i].packets + fates[LINK_DUPLICATED];
        left += now.flow[i].passed;
        lost += fates[LINK_LOST] + fates[LINK_FULL] + fates[LINK_DOWN];
    }
    for (int i = 0; i < ROUTER_REASONS; i++)
        dropped += now.dropped[i];
    MUST(lost >= now.dropped[ROUTER_LINK]);
    uint64_t lost_answers = lost - now.dropped[ROUTER_LINK];
    MUST(came + now.resets + now.unreachables ==
         left + dropped + lost_answers + now.on_link + flushed);
    MUST(now.mappings <= NAT_PROTOCOLS * (PORTS + 1u) || !translates);
}

static void check_events(void) {
    uint64_t number = 0;
    const struct router_event *event = traffic_next_event(traffic, 0);
    for (; event; event = traffic_next_event(traffic, number)) {
        MUST(event->number == ++number && event->at_ns <= now_ns);
        MUST(event->reason < ROUTER_REASONS && event->fate < LINK_FATES);
        MUST(!clean || event->readable);
        if (event->verdict != NAT_PASS && event->verdict != NAT_HAIRPIN)
            MUST(ip_equal(&event->before.source, &event->after.source) &&
                 ip_equal(&event->before.destination, &event->after.destination));
    }
}

/* kind, time, and six bytes of the kind's own. Returns how many bytes it has read beyond them. */
static size_t step(const uint8_t *bytes, size_t rest) {
    size_t raw = bytes[2] < rest ? bytes[2] : rest;
    now_ns += (uint64_t)bytes[1] * bytes[1] * MS / 16;
    switch (bytes[0] / 4 % 8) {
    case 0:
    case 1:
    case 2:
        begin(bytes);
        return 0;
    case 3:
    case 4:
        reply(bytes);
        return 0;
    case 5:
        traffic_advance(traffic, now_ns);
        return 0;
    case 6:
        configure(bytes, false);
        return 0;
    default:
        clean = translates = false;
        receive(bytes[3], bytes + STEP_SIZE, raw);
        return raw;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
    size_t steps = 0;
    if (length < CONFIG_SIZE)
        return 0;
    now_ns = 1000 * MS;
    flushed = last_length = 0;
    clean = true;
    if (traffic_new(bytes[0], on_frame, NULL, &traffic) != 0)
        abort();
    configure(bytes, true);
    for (size_t at = CONFIG_SIZE; at + STEP_SIZE <= length && steps++ < STEPS_MAX;
         at += STEP_SIZE) {
        at += step(bytes + at, length - at - STEP_SIZE);
        if (steps % 4 == 0) {
            traffic_advance(traffic, now_ns);
            MUST(traffic_next_due(traffic) > now_ns);
        }
        account();
    }
    check_events();
    traffic_free(traffic);
    return 0;
}
