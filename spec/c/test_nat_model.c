/* Types and deltas by name: what each does to both transports, as a stranger outside sees it. */
#include "spec/c/nat_router.h"

#include <stdlib.h>

#define LENGTH(list) (sizeof(list) / sizeof((list)[0]))

static const char *const types[] = {
    "open", "udp-firewall", "full-cone", "restricted", "port-restricted", "symmetric", "blocked"};
static const char *const deltas[] = {"equal", "preserving", "independent", "dependent", "random"};

enum { OPEN, UDP_FIREWALL, FULL_CONE, RESTRICTED, PORT_RESTRICTED, SYMMETRIC, BLOCKED };
enum { EQUAL, PRESERVING, INDEPENDENT, DEPENDENT, RANDOM };
enum { STEP = 3, PORT = 443 };

/* Ports that follow from the local one look the same to each destination, whatever the mapping. */
static void one_mapping_or_many(enum nat_protocol protocol, int type, int delta) {
    uint16_t first = begin_out(protocol, 5000, SERVER, PORT);
    CHECK(first != 0);
    CHECK_EQ(reason, NAT_MAPPED_NEW);
    uint16_t same_address = begin_out(protocol, 5000, SERVER, 80);
    uint16_t another = begin_out(protocol, 5000, OTHER, PORT);
    CHECK_EQ(begin_out(protocol, 5000, SERVER, PORT), first);
    CHECK_EQ(reason, NAT_MAPPED);
    bool many = (type == SYMMETRIC || type == BLOCKED) && delta != EQUAL && delta != PRESERVING;
    CHECK_EQ(same_address != first, many);
    CHECK_EQ(another != first, many);
    CHECK_EQ(another != same_address, many);
    CHECK_EQ(mappings(), many ? 3 : 1);
}

static void who_comes_in(enum nat_protocol protocol, int type) {
    uint16_t external = begin_out(protocol, 6000, 3, PORT);
    CHECK(begin_in(protocol, 3, PORT, external));
    CHECK(is_host(HOST, 6000));
    CHECK_EQ(sent.source_port, PORT);
    CHECK_EQ(reason, NAT_MAPPED);
    CHECK_EQ(begin_in(protocol, 3, 80, external), type == FULL_CONE || type == RESTRICTED);
    CHECK_EQ(begin_in(protocol, 4, PORT, external), type == FULL_CONE);
    if (type != FULL_CONE)
        CHECK_EQ(reason, NAT_FILTERED);
    CHECK(!begin_in(protocol, 3, PORT, external == 1024 ? 1025 : (uint16_t)(external - 1)));
    CHECK_EQ(reason, NAT_NO_MAPPING);
}

static const uint16_t locals[] = {30000, 30001, 30002, 40000, 40001, 20000, 20001, 20002};

/* How many of the neighbours differ by so much outside. */
static unsigned distances(const uint16_t *external, int wanted) {
    unsigned count = 0;
    for (size_t i = 1; i < LENGTH(locals); i++)
        count += external[i] - external[i - 1] == wanted;
    return count;
}

static void what_ports(enum nat_protocol protocol, int delta) {
    uint16_t external[LENGTH(locals)];
    unsigned equal = 0, constant = 0, after_next = 0, all = LENGTH(locals) - 1;
    for (size_t i = 0; i < LENGTH(locals); i++) {
        external[i] = begin_out(protocol, locals[i], SERVER, PORT);
        CHECK(external[i] >= 1024);
        equal += external[i] == locals[i];
        constant +=
            i > 0 &&
            (uint16_t)(external[i] - external[i - 1] - locals[i] + locals[i - 1]) % 64512 == 0;
        after_next +=
            i > 0 && locals[i] == locals[i - 1] + 1 && external[i] == external[i - 1] + STEP;
    }
    CHECK_EQ(equal, delta == EQUAL ? all + 1 : 0);
    CHECK_EQ(distances(external, STEP), delta == INDEPENDENT ? all : delta == DEPENDENT ? 5u : 0u);
    CHECK_EQ(after_next, delta == INDEPENDENT || delta == DEPENDENT ? 5 : 0);
    if (delta == EQUAL)
        CHECK_EQ(constant, all);
    else if (delta != PRESERVING)
        CHECK(constant < 3);
}

/* The distance is the same for all local ports, but where the range ends. */
static void a_kept_distance(enum nat_protocol protocol) {
    uint16_t distance = 0;
    for (uint16_t local = 1024; local < 65000; local = (uint16_t)(local + 101)) {
        uint16_t external = begin_out(protocol, local, SERVER, PORT);
        uint16_t now = (uint16_t)((external - local + 64512) % 64512);
        CHECK(now != 0);
        CHECK(distance == 0 || distance == now);
        distance = now;
    }
}

static void a_translator(int type, int delta) {
    for (enum nat_protocol protocol = NAT_UDP; protocol <= NAT_TCP; protocol++) {
        if (type == BLOCKED && protocol == NAT_UDP)
            continue;
        router(types[type], deltas[delta], STEP);
        one_mapping_or_many(protocol, type, delta);
        if (type != BLOCKED)
            who_comes_in(protocol, type);
        router(types[type], deltas[delta], STEP);
        what_ports(protocol, delta);
        router(types[type], deltas[delta], STEP);
        if (delta == PRESERVING)
            a_kept_distance(protocol);
    }
}

static void all_types_and_deltas_do_as_they_say(void) {
    for (int type = 0; type < (int)LENGTH(types); type++)
        for (int delta = 0; delta < (int)LENGTH(deltas); delta++) {
            struct nat_config any;
            bool exists = type >= FULL_CONE || delta == EQUAL;
            int before = check_bad;
            check_bad = 0;
            CHECK_EQ(nat_config_named(types[type], deltas[delta], STEP, &any),
                     exists ? 0 : UV_EINVAL);
            if (type >= FULL_CONE)
                a_translator(type, delta);
            if (check_bad)
                printf("  ^ %s/%s\n", types[type], deltas[delta]);
            check_bad |= before;
        }
}

static void what_is_open_keeps_nothing(void) {
    router("open", "na", 0);
    for (enum nat_protocol protocol = NAT_UDP; protocol < NAT_PROTOCOLS; protocol++) {
        CHECK_EQ(go_out(protocol, ACK, HOST, 5000, server_ip(SERVER), 9), 5000);
        CHECK_EQ(reason, NAT_UNTRANSLATED);
        CHECK(go_in(protocol, ACK, server_ip(OTHER), 9, inside_ip(HOST), 6000));
        CHECK_EQ(reason, NAT_UNTRANSLATED);
        CHECK(is_host(HOST, 6000));
        CHECK(go_in(protocol, SYN, server_ip(OTHER), 9, inside_ip(HOST), 6000));
    }
    CHECK_EQ(mappings(), 0);
}

static void a_firewall_translates_nothing(void) {
    router("udp-firewall", NULL, 0);
    config.external_count = 0;
    start(1);
    for (enum nat_protocol protocol = NAT_UDP; protocol <= NAT_TCP; protocol++) {
        CHECK(!go_in(protocol, SYN, server_ip(SERVER), PORT, inside_ip(HOST), 5000));
        CHECK_EQ(reason, NAT_NO_MAPPING);
        CHECK_EQ(begin_out(protocol, 5000, SERVER, PORT), 5000);
        CHECK_EQ(reason, NAT_UNTRANSLATED);
        struct ip host = inside_ip(HOST);
        CHECK(ip_equal(&sent.source, &host));
        CHECK(go_in(protocol, SYN, server_ip(SERVER), PORT, inside_ip(HOST), 5000));
        CHECK_EQ(reason, NAT_UNTRANSLATED);
        CHECK(!go_in(protocol, SYN, server_ip(SERVER), 80, inside_ip(HOST), 5000));
        CHECK_EQ(reason, NAT_FILTERED);
        CHECK(!go_in(protocol, SYN, server_ip(OTHER), PORT, inside_ip(HOST), 5000));
        CHECK_EQ(begin_out(protocol, 5000, OTHER, PORT), 5000);
        CHECK(go_in(protocol, SYN, server_ip(OTHER), PORT, inside_ip(HOST), 5000));
    }
    CHECK_EQ(mappings(), 2);
    config.protocols[NAT_UDP].mapping = NAT_ADDRESS_AND_PORT_DEPENDENT; /* nothing to depend */
    start(1);
    udp_out(HOST, 5000, SERVER, PORT);
    udp_out(HOST, 5000, OTHER, PORT);
    CHECK_EQ(mappings(), 1);
    CHECK(go_in(NAT_UDP, 0, server_ip(SERVER), PORT, inside_ip(HOST), 5000));
    CHECK(go_in(NAT_UDP, 0, server_ip(OTHER), PORT, inside_ip(HOST), 5000));
}

static void what_is_blocked_lets_tcp_out_to_few_ports(void) {
    static const uint16_t good[] = {80, 443, 1883, 8883, 3478, 5349};
    router("blocked", "na", 0);
    CHECK_EQ(udp_out(HOST, 5000, SERVER, 443), 0);
    CHECK_EQ(reason, NAT_BLOCKED);
    CHECK_EQ(go_out(NAT_ICMP, 0, HOST, 7, server_ip(SERVER), 0), 0);
    CHECK_EQ(reason, NAT_BLOCKED);
    CHECK(!udp_in(SERVER, 443, 5000));
    CHECK_EQ(reason, NAT_BLOCKED);
    CHECK_EQ(tcp_out(SYN, 5000, SERVER, 22), 0);
    CHECK_EQ(reason, NAT_BLOCKED);
    for (size_t i = 0; i < LENGTH(good); i++) {
        uint16_t external = tcp_out(SYN, 5000, SERVER, good[i]);
        CHECK(external != 0);
        CHECK(tcp_in(SYN | ACK, SERVER, good[i], external));
        CHECK(!tcp_in(SYN, OTHER, good[i], external));
        CHECK_EQ(verdict, NAT_DROP);
        CHECK(!tcp_in(SYN, SERVER, 22, external));
        CHECK_EQ(reason, NAT_BLOCKED);
    }
    config.open_ports[0] = 22;
    config.open_ports[1] = 0;
    start(1);
    CHECK(tcp_out(SYN, 5000, SERVER, 22) != 0);
    CHECK_EQ(tcp_out(SYN, 5000, SERVER, 80), 0);
}

/* The mapping of this scope: does another port, another address, have the same external port? */
static void mappings_depend_on_what_is_asked(void) {
    static const struct {
        enum nat_scope scope;
        bool same_for_port, same_for_address;
    } rows[] = {
        {NAT_ENDPOINT_INDEPENDENT, true, true},
        {NAT_ADDRESS_DEPENDENT, true, false},
        {NAT_ADDRESS_AND_PORT_DEPENDENT, false, false},
    };
    for (size_t i = 0; i < LENGTH(rows); i++) {
        name("port-restricted", "random", 0);
        config.protocols[NAT_UDP].mapping = rows[i].scope;
        start(i);
        uint16_t first = udp_out(HOST, 5000, SERVER, 1000);
        CHECK_EQ(udp_out(HOST, 5000, SERVER, 1001) == first, rows[i].same_for_port);
        CHECK_EQ(udp_out(HOST, 5000, OTHER, 1000) == first, rows[i].same_for_address);
        CHECK(udp_out(HOST + 1, 5000, SERVER, 1000) != first);
        CHECK(udp_out(HOST, 5001, SERVER, 1000) != first);
    }
}

/* Any mapping goes with any filter. */
static void filters_are_their_own_matter(void) {
    for (enum nat_scope mapping = NAT_ENDPOINT_INDEPENDENT; mapping < NAT_FILTER_NONE; mapping++)
        for (enum nat_scope filter = NAT_ENDPOINT_INDEPENDENT; filter <= NAT_FILTER_NONE;
             filter++) {
            name("symmetric", "random", 0);
            config.protocols[NAT_UDP].mapping = mapping;
            config.protocols[NAT_UDP].filtering = filter;
            start(1);
            uint16_t external = udp_out(HOST, 5000, SERVER, 1000);
            bool none = filter == NAT_ENDPOINT_INDEPENDENT || filter == NAT_FILTER_NONE;
            CHECK(udp_in(SERVER, 1000, external));
            CHECK_EQ(udp_in(SERVER, 1001, external), none || filter == NAT_ADDRESS_DEPENDENT);
            CHECK_EQ(udp_in(OTHER, 1000, external), none);
            CHECK(!udp_in(SERVER, 1000, external ^ 1)); /* what is translated needs a mapping */
        }
}

/* Two mappings of one inside endpoint: what one has contacted does not open the other. */
static void filters_are_those_of_the_mapping(void) {
    router("symmetric", "random", 0);
    uint16_t first = udp_out(HOST, 5000, SERVER, 1000), second = udp_out(HOST, 5000, OTHER, 1000);
    CHECK(udp_in(SERVER, 1000, first));
    CHECK(udp_in(OTHER, 1000, second));
    CHECK(!udp_in(SERVER, 1000, second));
    CHECK(!udp_in(OTHER, 1000, first));
    name("symmetric", "random", 0);
    config.protocols[NAT_TCP].filtering = NAT_ENDPOINT_INDEPENDENT;
    start(1);
    first = tcp_out(SYN, 5000, SERVER, 1000);
    second = tcp_out(SYN, 5000, OTHER, 1000);
    CHECK(!tcp_in(SYN, SERVER, 1000, second)); /* the same two endpoints are already connected */
    CHECK_EQ(reason, NAT_BAD_STATE);
    CHECK(tcp_in(SYN, 3, 1000, second));
    CHECK_EQ(tcp_out(SYN | ACK, 5000, 3, 1000), second); /* the answer takes the same way */
}

static void transports_differ(void) {
    name("full-cone", "equal", 0);
    struct nat_config other;
    CHECK_EQ(nat_config_named("symmetric", "random", 0, &other), 0);
    config.protocols[NAT_TCP] = other.protocols[NAT_TCP];
    start(1);
    CHECK_EQ(udp_out(HOST, 5000, SERVER, 1000), 5000);
    CHECK(udp_in(OTHER, 1000, 5000));
    uint16_t external = tcp_out(SYN, 5000, SERVER, 1000);
    CHECK(external != 5000);
    CHECK(tcp_out(SYN, 5000, OTHER, 1000) != external);
    CHECK(!tcp_in(SYN, OTHER, 1000, external));
    CHECK(!tcp_in(SYN, SERVER, 1000, 5000)); /* UDP's mapping is none of TCP's */
    CHECK_EQ(reason, NAT_NO_MAPPING);
}

static void words_that_are_none_are_refused(void) {
    static const struct {
        const char *type, *delta;
        int value, status;
    } rows[] = {
        {"cone", "equal", 0, UV_EINVAL},
        {"", "equal", 0, UV_EINVAL},
        {NULL, "equal", 0, UV_EINVAL},
        {"symmetric", "sequential", 1, UV_EINVAL},
        {"symmetric", "", 1, UV_EINVAL},
        {"symmetric", "na", 0, UV_EINVAL},
        {"symmetric", NULL, 0, UV_EINVAL},
        {"symmetric", "independent", 0, UV_EINVAL},
        {"symmetric", "dependent", 0, UV_EINVAL},
        {"symmetric", "independent", 65536, UV_EINVAL},
        {"symmetric", "independent", -65536, UV_EINVAL},
        {"symmetric", "independent", -1, 0},
        {"symmetric", "random", 0, 0},
        {"open", "random", 0, UV_EINVAL},
        {"udp-firewall", "independent", 1, UV_EINVAL},
        {"open", "equal", 0, 0},
        {"open", NULL, 0, 0},
        {"blocked", "na", 0, 0},
        {"blocked", "random", 0, 0},
    };
    struct nat_config out;
    for (size_t i = 0; i < LENGTH(rows); i++)
        CHECK_EQ(nat_config_named(rows[i].type, rows[i].delta, rows[i].value, &out),
                 rows[i].status);
}

static void the_times_are_those_of_the_rfcs(void) {
    name("symmetric", "random", 0);
    CHECK(config.protocols[NAT_UDP].idle_s >= 120);         /* RFC 4787, REQ-5 */
    CHECK(config.protocols[NAT_ICMP].idle_s >= 60);         /* RFC 5508, REQ-2 */
    CHECK(config.protocols[NAT_TCP].established_s >= 7440); /* RFC 5382, REQ-5 */
    CHECK(config.protocols[NAT_TCP].transitory_s >= 240);
    CHECK_EQ(config.table_limit, 65536);
}

#define REFUSED(change)                                                                            \
    do {                                                                                           \
        name("port-restricted", "preserving", 0);                                                  \
        struct nat_behaviour *udp = &config.protocols[NAT_UDP];                                    \
        udp->value = 0;                                                                            \
        CHECK_EQ(nat_config_check(&config), 0);                                                    \
        change;                                                                                    \
        CHECK_EQ(nat_config_check(&config), UV_EINVAL);                                            \
        struct nat_model *none = NULL;                                                             \
        CHECK_EQ(nat_model_new(&config, 1, &none), UV_EINVAL);                                     \
        CHECK(none == NULL);                                                                       \
    } while (0)

static void what_cannot_be_is_refused(void) {
    REFUSED(udp->first = 0);
    REFUSED(udp->first = 3000; udp->last = 2999);
    REFUSED(udp->first = 3000; udp->last = 3000); /* no distance to preserve */
    REFUSED(udp->delta = NAT_DELTA_DEPENDENT);
    REFUSED(udp->mapping = NAT_FILTER_NONE);
    REFUSED(udp->idle_s = 0);
    REFUSED(config.protocols[NAT_TCP].established_s = 0);
    REFUSED(config.protocols[NAT_TCP].transitory_s = 0);
    REFUSED(config.external_count = 0);
    REFUSED(config.external_count = NAT_ADDRESSES + 1);
    REFUSED(config.external[1] = config.external[0]; config.external_count = 2);
    REFUSED(config.external[0].family = 6);
    REFUSED(config.table_limit = 0);
    REFUSED(config.noise = -1);
    REFUSED(config.noise = 1e300);
    REFUSED(config.noise = strtod("nan", NULL));
    REFUSED(config.time_scale = 0);
    REFUSED(config.time_scale = strtod("inf", NULL));
}

int main(void) {
    RUN(all_types_and_deltas_do_as_they_say);
    RUN(what_is_open_keeps_nothing);
    RUN(a_firewall_translates_nothing);
    RUN(what_is_blocked_lets_tcp_out_to_few_ports);
    RUN(mappings_depend_on_what_is_asked);
    RUN(filters_are_their_own_matter);
    RUN(filters_are_those_of_the_mapping);
    RUN(transports_differ);
    RUN(words_that_are_none_are_refused);
    RUN(the_times_are_those_of_the_rfcs);
    RUN(what_cannot_be_is_refused);
    return report();
}
