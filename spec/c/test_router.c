/* router_traffic: frames of an Ethernet pair go in, and what leaves is looked at; time is a number.
 */
#include "core/frame.h"
#include "core/packet.h"
#include "core/router_traffic.h"
#include "spec/c/check.h"
#include "spec/c/packet_maker.h"

#define MS UINT64_C(1000000)

enum {
    TRANSLATE = 3,
    BYPASS = ROUTER_BYPASS
}; /* last bytes of addresses that the kernel sends to */
enum { LEFT_MAX = 64, LOCAL = 5000, SERVED = 80 };

static const char *const neighbour[] = {"192.168.1.11", "2c0f:30:3:1::11"};

static struct traffic *traffic;
static struct router_config config;
static uint64_t now_ns;

static struct {
    uint8_t bytes[FRAME_SIZE];
    size_t length;
    struct packet packet;
} left[LEFT_MAX]; /* what has left since the last `receive` */
static unsigned left_count;

static void on_frame(void *arg, const uint8_t *frame, size_t length) {
    static const uint8_t turned[] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0};
    (void)arg;
    CHECK(left_count < LEFT_MAX && length <= FRAME_SIZE);
    CHECK(memcmp(frame, turned, sizeof turned) == 0);
    memcpy(left[left_count].bytes, frame, length);
    left[left_count].length = length;
    uint8_t *packet = left[left_count].bytes + FRAME_HEADER_SIZE;
    if (packet_parse(packet, length - FRAME_HEADER_SIZE, &left[left_count].packet) == 0)
        CHECK(sealed(packet, left[left_count].packet.length));
    left_count++;
}

/* `config` as named, for both versions; cases change it before they call start(). */
static void name(const char *type, const char *delta) {
    memset(&config, 0, sizeof config);
    CHECK_EQ(nat_config_named(type, delta, 1, &config.ipv4), 0);
    config.ipv4.external[0] = ip(external[0]);
    config.ipv4.external_count = 1;
    config.ipv4.hairpin = true;
    nat_config_firewall(NAT_ADDRESS_AND_PORT_DEPENDENT, &config.ipv6);
    config.inside[0] = (struct router_prefix){ip("192.168.1.0"), 24};
    config.inside[1] = (struct router_prefix){ip("2c0f:30:3:1::"), 64};
    config.inside_count = 2;
}

static void start(void) {
    traffic_free(traffic);
    traffic = NULL;
    now_ns = 1000 * MS;
    CHECK_EQ(traffic_new(1, on_frame, NULL, &traffic), 0);
    CHECK_EQ(traffic_configure(traffic, &config, false), 0);
}

static void router(const char *type, const char *delta) {
    name(type, delta);
    start();
}

static void receive(uint8_t to, const uint8_t *packet, size_t length) {
    uint8_t frame[FRAME_SIZE] = {2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, 1, 8, 0};
    if (packet[0] >> 4 == 6)
        frame[12] = 0x86, frame[13] = 0xdd;
    memcpy(frame + FRAME_HEADER_SIZE, packet, length);
    left_count = 0;
    traffic_receive(traffic, now_ns, frame, FRAME_HEADER_SIZE + length);
    traffic_advance(traffic, now_ns);
}

static void come(uint8_t protocol, const char *from, uint16_t from_port, const char *to,
                 uint16_t to_port) {
    uint8_t bytes[FRAME_SIZE];
    size_t length = flow(bytes, protocol, from, from_port, to, to_port, 20);
    receive(TRANSLATE, bytes, length);
}

static struct router_stats stats(void) {
    struct router_stats stats;
    traffic_stats(traffic, now_ns, &stats);
    return stats;
}

/* The last event; none is left out. */
static struct router_event last_event(void) {
    uint64_t events = stats().events;
    const struct router_event *event = events ? traffic_next_event(traffic, events - 1) : NULL;
    CHECK(event && event->number == events && event->at_ns == now_ns);
    return event ? *event : (struct router_event){0};
}

static bool is(const struct ip *seen, const char *text) {
    struct ip wanted = ip(text);
    return ip_equal(seen, &wanted);
}

static bool left_as(const char *from, uint16_t from_port, const char *to, uint16_t to_port) {
    const struct packet *packet = &left[0].packet;
    return left_count == 1 && is(&packet->source, from) && is(&packet->destination, to) &&
           packet->flow.source_port == from_port && packet->flow.destination_port == to_port;
}

/* --- the NAT ------------------------------------------------------------------------------- */

static void what_goes_out_is_translated_and_answers_find_back(void) {
    router("port-restricted", "equal");
    come(UDP, inside[0], LOCAL, outside[0], SERVED);
    CHECK(left_as(external[0], LOCAL, outside[0], SERVED));
    CHECK_EQ(left[0].bytes[FRAME_HEADER_SIZE + 8], 8); /* the hop that the kernel takes again */
    struct router_event event = last_event();
    CHECK(event.readable && !event.error && event.linked && event.fate == LINK_QUEUED);
    CHECK(event.direction == ROUTER_OUT && event.reason == ROUTER_MAPPED_NEW);
    CHECK(is(&event.before.source, inside[0]) && is(&event.after.source, external[0]));
    come(UDP, outside[0], SERVED, external[0], LOCAL);
    CHECK(left_as(outside[0], SERVED, inside[0], LOCAL));
    CHECK_EQ(last_event().direction, ROUTER_IN);
    come(UDP, outside[0], SERVED + 1, external[0], LOCAL);
    CHECK_EQ(left_count, 0);
    event = last_event();
    CHECK(event.verdict == NAT_DROP && event.reason == (enum router_reason)NAT_FILTERED);
    CHECK(is(&event.after.destination, external[0]));
    struct router_stats now = stats();
    CHECK_EQ(now.flow[ROUTER_OUT].packets, 1);
    CHECK_EQ(now.flow[ROUTER_OUT].passed, 1);
    CHECK_EQ(now.flow[ROUTER_OUT].bytes, 48);
    CHECK_EQ(now.flow[ROUTER_IN].packets, 2);
    CHECK_EQ(now.flow[ROUTER_IN].passed, 1);
    CHECK_EQ(now.dropped[NAT_FILTERED], 1);
    CHECK_EQ(now.mappings, 1);
}

static void a_hairpin_goes_back_inside(void) {
    router("full-cone", "equal");
    come(UDP, neighbour[0], 6000, outside[0], SERVED);
    come(UDP, inside[0], LOCAL, external[0], 6000);
    CHECK(left_as(external[0], LOCAL, neighbour[0], 6000));
    CHECK_EQ(last_event().verdict, NAT_HAIRPIN);
    CHECK(!last_event().linked);
    CHECK_EQ(stats().hairpins, 1);
    CHECK_EQ(stats().flow[ROUTER_IN].passed, 1);
}

/* RFC 5508, REQ-7: the neighbour refuses what came to it by a hairpin. */
static void an_error_about_a_hairpin_finds_back(void) {
    uint8_t bytes[FRAME_SIZE], quoted[FRAME_SIZE];
    router("full-cone", "equal");
    come(UDP, neighbour[0], 6000, outside[0], SERVED);
    come(UDP, inside[0], LOCAL, external[0], 6000);
    memcpy(quoted, left[0].bytes + FRAME_HEADER_SIZE, 48);
    receive(TRANSLATE, bytes, error(bytes, neighbour[0], external[0], quoted, 48));
    CHECK_EQ(left_count, 1);
    const struct packet *packet = &left[0].packet;
    CHECK(packet->error && is(&packet->source, external[0]) && is(&packet->destination, inside[0]));
    CHECK(is(&packet->flow.source, inside[0]) && packet->flow.source_port == LOCAL);
    CHECK(is(&packet->flow.destination, external[0]) && packet->flow.destination_port == 6000);
    CHECK(last_event().error && last_event().verdict == NAT_HAIRPIN);
    /* One whose quote nobody has sent: half of the way is no reason to tell of it as translated. */
    flow(quoted, UDP, external[0], 7777, neighbour[0], 6000, 20);
    receive(TRANSLATE, bytes, error(bytes, neighbour[0], external[0], quoted, 48));
    CHECK_EQ(left_count, 0);
    struct router_event event = last_event();
    CHECK(event.verdict == NAT_DROP && event.reason == ROUTER_UNKNOWN_ERROR);
    CHECK(is(&event.after.destination, neighbour[0]));
    CHECK_EQ(stats().dropped[ROUTER_UNKNOWN_ERROR], 1);
}

static void errors_follow_what_they_quote(void) {
    uint8_t bytes[FRAME_SIZE], quoted[FRAME_SIZE];
    router("symmetric", "equal");
    come(TCP, inside[0], LOCAL, outside[0], SERVED);
    memcpy(quoted, left[0].bytes + FRAME_HEADER_SIZE, 60);
    receive(TRANSLATE, bytes, error(bytes, hop[0], external[0], quoted, 28));
    CHECK(left_count == 1 && left[0].packet.error && is(&left[0].packet.destination, inside[0]));
    CHECK(is(&left[0].packet.flow.source, inside[0]));
    flow(quoted, TCP, external[0], LOCAL, outside[0], SERVED + 1, 20);
    receive(TRANSLATE, bytes, error(bytes, hop[0], external[0], quoted, 28));
    CHECK_EQ(left_count, 0);
}

static void what_is_from_nowhere_goes_nowhere(void) {
    router("open", NULL);
    come(UDP, outside[0], 1, hop[0], 2);
    CHECK_EQ(left_count, 0);
    CHECK_EQ(last_event().reason, ROUTER_STRAY);
    come(UDP, inside[0], 1, "224.0.0.251", 2); /* the kernel's own talk on the pair */
    come(UDP, "169.254.0.1", 1, inside[0], 2);
    CHECK_EQ(stats().flow[ROUTER_OUT].packets, 0);
    CHECK_EQ(stats().events, 1);
}

/* --- answers, and IPv6 --------------------------------------------------------------------- */

static void an_uninvited_syn_is_answered_in_both_versions(void) {
    for (int version = 0; version < 2; version++)
        for (enum nat_uninvited what = NAT_UNINVITED_DROP; what <= NAT_UNINVITED_UNREACHABLE;
             what++) {
            name("port-restricted", "equal");
            config.ipv4.protocols[NAT_TCP].uninvited = what;
            config.ipv6.protocols[NAT_TCP].uninvited = what;
            start();
            const char *to = version == 0 ? external[0] : inside[1];
            come(TCP, outside[version], SERVED, to, LOCAL);
            CHECK_EQ(left_count, what != NAT_UNINVITED_DROP);
            CHECK_EQ(stats().dropped[NAT_NO_MAPPING], 1);
            CHECK_EQ(stats().resets, what == NAT_UNINVITED_RESET);
            CHECK_EQ(stats().unreachables, what == NAT_UNINVITED_UNREACHABLE);
            if (left_count == 0)
                continue;
            const struct packet *packet = &left[0].packet;
            CHECK(is(&packet->source, to) && is(&packet->destination, outside[version]));
            if (what == NAT_UNINVITED_RESET) {
                CHECK(!packet->error && packet->flow.tcp_flags == (RST | ACK));
                CHECK(left_as(to, LOCAL, outside[version], SERVED));
            } else {
                CHECK(packet->error && is(&packet->flow.source, outside[version]));
            }
        }
}

static void what_blocks_ipv4_blocks_ipv6(void) {
    name("blocked", NULL);
    for (int i = 0; i < NAT_PROTOCOLS; i++)
        config.ipv6.protocols[i].blocked = true;
    start();
    for (int version = 0; version < 2; version++) {
        come(UDP, inside[version], LOCAL, outside[version], SERVED);
        CHECK_EQ(left_count, 0);
        CHECK(last_event().reason == (enum router_reason)NAT_BLOCKED);
        come(TCP, inside[version], LOCAL, outside[version], 443);
        CHECK_EQ(left_count, 1);
        come(TCP, inside[version], LOCAL, outside[version], 7000);
        CHECK_EQ(left_count, 0);
    }
}

static void ipv6_keeps_its_addresses_and_can_be_off(void) {
    router("symmetric", "random");
    come(UDP, inside[1], LOCAL, outside[1], SERVED);
    CHECK(left_as(inside[1], LOCAL, outside[1], SERVED));
    CHECK_EQ(left[0].bytes[FRAME_HEADER_SIZE + 7], 8);
    come(UDP, outside[1], SERVED, inside[1], LOCAL);
    CHECK_EQ(left_count, 1);
    CHECK_EQ(stats().mappings_ipv6, 1);
    config.no_ipv6 = true;
    CHECK_EQ(traffic_configure(traffic, &config, false), 0);
    come(UDP, inside[1], LOCAL, outside[1], SERVED);
    CHECK_EQ(left_count, 0);
    CHECK_EQ(last_event().reason, ROUTER_NO_IPV6);
}

/* --- links --------------------------------------------------------------------------------- */

static void the_nat_decides_when_a_packet_has_arrived(void) {
    name("port-restricted", "equal");
    config.link[ROUTER_IN].delay_ns = 10 * MS;
    config.link[ROUTER_OUT].delay_ns = 20 * MS;
    start();
    come(UDP, outside[0], SERVED, external[0], LOCAL);
    CHECK_EQ(stats().events, 0);
    CHECK(traffic_next_due(traffic) == now_ns + 10 * MS);
    come(UDP, inside[0], LOCAL, outside[0], SERVED);
    CHECK_EQ(left_count, 0);
    CHECK_EQ(stats().on_link, 2);
    now_ns += 10 * MS;
    traffic_advance(traffic, now_ns);
    CHECK(left_as(outside[0], SERVED, inside[0], LOCAL));
    left_count = 0;
    now_ns += 10 * MS;
    traffic_advance(traffic, now_ns);
    CHECK(left_as(external[0], LOCAL, outside[0], SERVED));
    CHECK(traffic_next_due(traffic) == UINT64_MAX);
}

static void each_fate_is_told_in_both_directions(void) {
    static const struct {
        struct link_config link;
        enum link_fate fate;
        unsigned copies;
    } cases[] = {
        {{0}, LINK_QUEUED, 1},
        {{.duplicate = 1}, LINK_DUPLICATED, 2},
        {{.reorder = 1}, LINK_REORDERED, 1},
        {{.loss = 1}, LINK_LOST, 0},
        {{.down = true}, LINK_DOWN, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        name("full-cone", "equal");
        start();
        come(UDP, inside[0], LOCAL, outside[0], SERVED);
        config.link[0] = config.link[1] = cases[i].link;
        CHECK_EQ(traffic_configure(traffic, &config, false), 0);
        come(UDP, inside[0], LOCAL, outside[0], SERVED);
        CHECK(last_event().verdict == NAT_PASS && last_event().linked);
        CHECK_EQ(last_event().fate, cases[i].fate);
        now_ns += LINK_HELD_BACK_NS;
        traffic_advance(traffic, now_ns);
        CHECK_EQ(left_count, cases[i].copies);
        uint64_t before = stats().events;
        come(UDP, outside[0], SERVED, external[0], LOCAL);
        uint64_t lost = stats().events - before;
        now_ns += LINK_HELD_BACK_NS;
        traffic_advance(traffic, now_ns);
        CHECK_EQ(left_count, cases[i].copies);
        CHECK_EQ(stats().events - before, cases[i].copies ? cases[i].copies : 1);
        const struct router_event *event = traffic_next_event(traffic, before);
        for (; event; event = traffic_next_event(traffic, event->number)) {
            CHECK(event->direction == ROUTER_IN && event->linked && event->readable);
            CHECK_EQ(event->fate, cases[i].fate);
            CHECK_EQ(event->verdict, cases[i].copies ? NAT_PASS : NAT_DROP);
        }
        if (cases[i].copies == 0)
            CHECK_EQ(lost, 1);
        CHECK_EQ(stats().dropped[ROUTER_LINK], cases[i].copies ? 0 : 2);
        for (int direction = 0; direction < 2; direction++)
            CHECK(stats().flow[direction].fates[cases[i].fate] >= 1);
    }
}

/* It is no packet that came. */
static void an_answer_that_is_lost_is_not_dropped_again(void) {
    name("port-restricted", "equal");
    config.ipv4.protocols[NAT_TCP].uninvited = NAT_UNINVITED_RESET;
    config.link[ROUTER_OUT].loss = 1;
    start();
    come(TCP, outside[0], SERVED, external[0], LOCAL);
    CHECK_EQ(left_count, 0);
    CHECK_EQ(last_event().fate, LINK_LOST);
    struct router_stats now = stats();
    CHECK_EQ(now.resets, 1);
    CHECK_EQ(now.flow[ROUTER_OUT].fates[LINK_LOST], 1);
    CHECK_EQ(now.dropped[NAT_NO_MAPPING], 1);
    CHECK_EQ(now.dropped[ROUTER_LINK], 0);
}

/* --- what no model sees -------------------------------------------------------------------- */

static void what_is_mapped_before_is_only_delayed(void) {
    uint8_t bytes[FRAME_SIZE];
    router("symmetric", "random");
    receive(BYPASS, bytes, flow(bytes, UDP, outside[0], SERVED, inside[0], LOCAL, 20));
    CHECK(left_as(outside[0], SERVED, inside[0], LOCAL));
    CHECK(last_event().reason == ROUTER_MAPPED_BEFORE && last_event().direction == ROUTER_IN);
    receive(BYPASS, bytes, flow(bytes, UDP, external[0], LOCAL, outside[0], SERVED, 20));
    CHECK(left_as(external[0], LOCAL, outside[0], SERVED));
    CHECK(last_event().reason == ROUTER_MAPPED_BEFORE && last_event().direction == ROUTER_OUT);
    CHECK_EQ(stats().mappings, 0);
    config.link[0].loss = config.link[1].loss = 1;
    CHECK_EQ(traffic_configure(traffic, &config, false), 0);
    receive(BYPASS, bytes, flow(bytes, UDP, outside[0], SERVED, inside[0], LOCAL, 20));
    receive(BYPASS, bytes, flow(bytes, UDP, external[0], LOCAL, outside[0], SERVED, 20));
    CHECK_EQ(stats().dropped[ROUTER_LINK], 2);
}

/* Of fragments the addresses are told, whether the link or the router drops them. */
static void what_cannot_be_read_is_told_by_its_addresses(void) {
    uint8_t bytes[FRAME_SIZE];
    for (int loss = 0; loss < 2; loss++) {
        name("open", NULL);
        config.link[ROUTER_IN].loss = loss;
        start();
        size_t length = flow(bytes, UDP, outside[0], SERVED, inside[0], LOCAL, 20);
        bytes[6] = 0x20; /* there are more fragments */
        receive(TRANSLATE, bytes, length);
        struct router_event event = last_event();
        CHECK_EQ(event.reason, loss ? ROUTER_LINK : ROUTER_UNSUPPORTED);
        CHECK(!event.readable && event.verdict == NAT_DROP && event.direction == ROUTER_IN);
        CHECK(is(&event.before.source, outside[0]) && is(&event.before.destination, inside[0]));
        CHECK(is(&event.after.source, outside[0]) && event.before.source_port == 0);
    }
    bytes[0] = 0; /* no IP at all, though the frame says so */
    receive(TRANSLATE, bytes, 48);
    start();
    config.link[ROUTER_IN].loss = 0;
    CHECK_EQ(traffic_configure(traffic, &config, false), 0);
    receive(TRANSLATE, bytes, 48);
    CHECK(last_event().reason == ROUTER_UNREADABLE && last_event().before.source.family == 0);
    CHECK_EQ(stats().flow[ROUTER_IN].packets, 1);
    CHECK_EQ(stats().dropped[ROUTER_UNREADABLE], 1);
}

static void other_frames_are_passed_over(void) {
    uint8_t frame[FRAME_SIZE + 1] = {[12] = 8, [13] = 6}; /* ARP */
    router("open", NULL);
    for (size_t length = 0; length < 100; length++)
        traffic_receive(traffic, now_ns, frame, length);
    frame[13] = 0;
    traffic_receive(traffic, now_ns, frame, FRAME_SIZE + 1);
    CHECK_EQ(stats().events, 0);
}

static void routine_is_not_remembered(void) {
    uint8_t bytes[FRAME_SIZE];
    router("port-restricted", "equal");
    come(TCP, inside[0], LOCAL, outside[0], SERVED);
    uint64_t events = stats().events;
    size_t length = flow(bytes, TCP, inside[0], LOCAL, outside[0], SERVED, 20);
    bytes[33] = ACK;
    seal(bytes, length);
    receive(TRANSLATE, bytes, length);
    CHECK_EQ(left_count, 1);
    CHECK_EQ(stats().events, events);
    for (unsigned i = 0; i < ROUTER_EVENTS + 10; i++) /* and what is remembered is bounded */
        come(UDP, inside[0], LOCAL, outside[0], SERVED);
    const struct router_event *event = traffic_next_event(traffic, 0);
    CHECK_EQ(event->number, events + 11);
    CHECK(!traffic_next_event(traffic, stats().events));
}

static void nothing_passes_before_it_is_configured(void) {
    router("open", NULL);
    traffic_free(traffic);
    CHECK_EQ(traffic_new(1, on_frame, NULL, &traffic), 0);
    come(UDP, inside[0], LOCAL, outside[0], SERVED);
    CHECK_EQ(left_count, 0);
    config.ipv4.table_limit = 0;
    CHECK(traffic_configure(traffic, &config, false) != 0);
    come(UDP, inside[0], LOCAL, outside[0], SERVED);
    CHECK_EQ(left_count, 0);
    CHECK_EQ(stats().flow[ROUTER_OUT].packets, 0);
}

static void a_flush_forgets_mappings_and_a_cut_packets(void) {
    name("port-restricted", "equal");
    config.link[ROUTER_OUT].delay_ns = MS;
    start();
    come(UDP, inside[0], LOCAL, outside[0], SERVED);
    CHECK_EQ(stats().mappings, 1);
    CHECK_EQ(stats().on_link, 1);
    CHECK_EQ(traffic_configure(traffic, &config, false), 0);
    CHECK_EQ(stats().mappings, 1);
    CHECK_EQ(traffic_configure(traffic, &config, true), 0);
    CHECK_EQ(stats().mappings, 0);
    CHECK_EQ(stats().on_link, 1);
    config.link[ROUTER_OUT].down = true;
    CHECK_EQ(traffic_configure(traffic, &config, false), 0);
    CHECK_EQ(stats().on_link, 0);
    CHECK(traffic_next_due(traffic) == UINT64_MAX);
}

int main(void) {
    RUN(what_goes_out_is_translated_and_answers_find_back);
    RUN(a_hairpin_goes_back_inside);
    RUN(an_error_about_a_hairpin_finds_back);
    RUN(errors_follow_what_they_quote);
    RUN(what_is_from_nowhere_goes_nowhere);
    RUN(an_uninvited_syn_is_answered_in_both_versions);
    RUN(what_blocks_ipv4_blocks_ipv6);
    RUN(ipv6_keeps_its_addresses_and_can_be_off);
    RUN(the_nat_decides_when_a_packet_has_arrived);
    RUN(each_fate_is_told_in_both_directions);
    RUN(an_answer_that_is_lost_is_not_dropped_again);
    RUN(what_is_mapped_before_is_only_delayed);
    RUN(what_cannot_be_read_is_told_by_its_addresses);
    RUN(other_frames_are_passed_over);
    RUN(routine_is_not_remembered);
    RUN(nothing_passes_before_it_is_configured);
    RUN(a_flush_forgets_mappings_and_a_cut_packets);
    traffic_free(traffic);
    return check_report();
}
