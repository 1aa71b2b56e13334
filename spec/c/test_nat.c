/* What is made of observations: of each kind of NAT without a flaw, and with lost answers, other
 * people's flows, the ends of ranges, and servers that lie. */
#include "core/nat.h"
#include "spec/c/check.h"

#include <math.h>
#include <stdlib.h>

enum { A = 3, B = 4, C = 9, PORT = 3478, OTHER = 3479, HOST_PORT = 20000 };

static struct nat_seen seen[NAT_SEEN_MAX];
static struct nat_filter_test tests[NAT_TESTS_MAX];
static struct nat_observations given;
static struct nat_report got;
static unsigned external_last;

static struct ip server(unsigned last) {
    return (struct ip){.family = 4, .bytes = {30, 1, 0, (uint8_t)last}};
}

static struct ip external(void) {
    return (struct ip){.family = 4, .bytes = {30, 2, 1, (uint8_t)external_last}};
}

static void begin(void) {
    external_last = 2;
    given = (struct nat_observations){
        .local = {.family = 4, .bytes = {192, 168, 1, 10}}, .seen = seen, .tests = tests};
}

static struct nat_seen *ask(unsigned last, uint16_t server_port, int local, int port) {
    struct nat_seen *one = &seen[given.seen_count++];
    *one = (struct nat_seen){.server = server(last),
                             .external = external(),
                             .local_port = (uint16_t)local,
                             .server_port = server_port,
                             .external_port = (uint16_t)port,
                             .tries = 1};
    return one;
}

static void silent(unsigned last, uint16_t server_port, int local) {
    ask(last, server_port, local, 0)->external = (struct ip){0};
}

static void test_filter(unsigned from, bool answered) {
    tests[given.test_count++] = (struct nat_filter_test){.server = server(A),
                                                         .server_port = PORT,
                                                         .from = server(from),
                                                         .from_port = OTHER,
                                                         .answered = answered,
                                                         .tries = 4};
}

/* Who is let in: everybody, another port of the server, nobody else. The other ports are alive. */
static void filters(enum nat_scope filtering, int port) {
    ask(A, OTHER, 50000, port);
    ask(B, OTHER, 50000, port);
    test_filter(B, filtering == NAT_ENDPOINT_INDEPENDENT);
    test_filter(A, filtering != NAT_ADDRESS_AND_PORT_DEPENDENT);
}

static const int block[] = {0, 1, 2, 3, 8, 9, 10, 11, 5};
#define BLOCK (sizeof block / sizeof block[0])

/* A series toward one server: `next(local)` is the external port. */
static void series(unsigned last, int base, int (*next)(int local)) {
    for (size_t i = 0; i < BLOCK; i++)
        ask(last, PORT, base + block[i], next(base + block[i]));
}

static int last_port, last_local, step;
static unsigned random_state = 1;

static int random_port(int local) {
    last_local = local;
    random_state = random_state * 1103515245u + 12345u;
    return last_port = 1024 + (int)(random_state >> 8) % 64512;
}

static int equal(int local) {
    return local;
}

static int preserving(int local) {
    return 1024 + (local + 7777 - 1024) % 64512;
}

static int independent(int local) {
    last_local = local;
    return last_port = 1024 + (last_port + step - 1024 + 64512) % 64512;
}

static int dependent(int local) {
    return local == last_local + 1 ? independent(local) : random_port(local);
}

static void classify(void) {
    nat_classify(&given, &got);
}

static void is(const char *type, const char *delta, int value) {
    classify();
    CHECK_TEXT(addr_nat_word(got.type), type);
    CHECK_TEXT(addr_delta_word(got.delta), delta);
    CHECK_EQ(got.value, value);
}

static void sure(void) {
    CHECK(got.confidence >= 0.9 && got.confidence <= 1);
    CHECK_EQ(got.liar.family, 0);
}

static void each_filter_is_a_type(void) {
    static const char *const types[] = {"full-cone", "restricted", "port-restricted"};
    for (int scope = NAT_ENDPOINT_INDEPENDENT; scope <= NAT_ADDRESS_AND_PORT_DEPENDENT; scope++) {
        begin();
        ask(A, PORT, 50000, 50000);
        ask(B, PORT, 50000, 50000);
        series(A, HOST_PORT, equal);
        filters((enum nat_scope)scope, 50000);
        is(types[scope], "equal", 0);
        sure();
        CHECK_EQ(got.filtering, scope);
        CHECK_EQ(got.mapping, NAT_ENDPOINT_INDEPENDENT);
        struct ip outside = external();
        CHECK(ip_equal(&got.external, &outside));
        CHECK(got.translated);
    }
}

static void without_translation_the_filter_makes_the_difference(void) {
    for (int scope = NAT_ENDPOINT_INDEPENDENT; scope <= NAT_ADDRESS_AND_PORT_DEPENDENT; scope++) {
        begin();
        given.local = external();
        filters((enum nat_scope)scope, 50000);
        is(scope == NAT_ENDPOINT_INDEPENDENT ? "open" : "udp-firewall", "na", 0);
        sure();
        CHECK(!got.translated);
    }
}

static void each_delta(void) {
    static const struct {
        const char *delta;
        int (*next)(int local);
        int value;
    } rows[] = {{"equal", equal, 0},
                {"preserving", preserving, 0},
                {"independent", independent, 1},
                {"independent", independent, -2},
                {"independent", independent, 500},
                {"dependent", dependent, 2},
                {"dependent", dependent, -1},
                {"dependent", dependent, 64},
                {"random", random_port, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        begin();
        step = rows[i].value;
        last_port = 40000;
        last_local = 0;
        int port = rows[i].next(50000);
        ask(A, PORT, 50000, port);
        ask(B, PORT, 50000, port);
        series(A, HOST_PORT, rows[i].next);
        series(B, HOST_PORT + 3000, rows[i].next);
        filters(NAT_ADDRESS_AND_PORT_DEPENDENT, port);
        is("port-restricted", rows[i].delta, rows[i].value);
        sure();
    }
}

static void dependent_by_one_and_preserving_differ_where_ports_jump(void) {
    begin();
    step = 1;
    series(A, HOST_PORT, dependent);
    filters(NAT_ADDRESS_AND_PORT_DEPENDENT, random_port(50000));
    is("port-restricted", "dependent", 1);
}

static void symmetric_maps_by_destination(void) {
    for (int by_port = 0; by_port < 2; by_port++) {
        begin();
        step = 3;
        last_port = 40000;
        int first = independent(50000);
        ask(A, PORT, 50000, first);
        int second = independent(50000);
        ask(B, PORT, 50000, second);
        series(A, HOST_PORT, independent);
        ask(A, OTHER, 50000, by_port ? independent(50000) : first);
        ask(B, OTHER, 50000, by_port ? independent(50000) : second);
        test_filter(B, false);
        test_filter(A, false);
        is("symmetric", "independent", 3);
        sure();
        CHECK_EQ(got.mapping, by_port ? NAT_ADDRESS_AND_PORT_DEPENDENT : NAT_ADDRESS_DEPENDENT);
    }
}

static void other_peoples_flows_and_lost_answers_change_nothing(void) {
    for (unsigned seed = 1; seed <= 50; seed++) {
        for (int value = -3; value <= 3; value += 2) {
            begin();
            random_state = seed;
            step = value;
            last_port = 40000;
            for (size_t i = 0; i < 2 * BLOCK; i++) {
                int local = HOST_PORT + block[i % BLOCK] + (i < BLOCK ? 0 : 500);
                random_state = random_state * 1103515245u + 12345u;
                unsigned chance = random_state >> 16;
                if (chance % 8 == 0)
                    independent(0); /* somebody else's */
                if (chance % 7 == 0) {
                    if (chance % 2)
                        independent(local); /* it is the answer that was lost */
                    silent(A, PORT, local);
                } else {
                    ask(A, PORT, local, independent(local));
                }
            }
            int port = independent(50000);
            ask(A, PORT, 50000, port);
            filters(NAT_ADDRESS_AND_PORT_DEPENDENT, port);
            is("port-restricted", "independent", value);
        }
    }
}

static void ports_come_around_at_the_end_of_the_range(void) {
    begin();
    step = 1;
    last_port = 65530;
    series(A, HOST_PORT, independent);
    series(B, HOST_PORT + 100, independent);
    filters(NAT_ADDRESS_AND_PORT_DEPENDENT, independent(50000));
    is("port-restricted", "independent", 1);
    CHECK_EQ(got.first, 1024);
    CHECK_EQ(got.last, 65535);
    begin(); /* a mapping that is used again jumps back, too, but at no end */
    step = 7;
    last_port = 40000;
    int first = independent(50000);
    filters(NAT_ADDRESS_AND_PORT_DEPENDENT, first);
    series(A, HOST_PORT, independent);
    series(B, HOST_PORT + 100, independent);
    ask(C, PORT, 50000, first);
    series(A, HOST_PORT + 200, independent);
    is("port-restricted", "independent", 7);
    CHECK_EQ(got.first, 0);
    begin(); /* neither is there one where a packet was late, and others go on */
    last_port = 40000;
    series(A, HOST_PORT, independent);
    ask(A, PORT, 50001, 40000);
    series(B, HOST_PORT + 100, independent);
    filters(NAT_ADDRESS_AND_PORT_DEPENDENT, independent(50000));
    is("port-restricted", "independent", 7);
    CHECK_EQ(got.first, 0);
    begin();
    for (size_t i = 0; i < BLOCK; i++) /* local ports 57757 and on are external ones from 1024 on */
        ask(A, PORT, 57754 + block[i], preserving(57754 + block[i]));
    series(B, HOST_PORT, preserving);
    filters(NAT_ADDRESS_AND_PORT_DEPENDENT, preserving(50000));
    is("port-restricted", "preserving", 0);
    sure();
}

static int in_part(int local) {
    return 40000 + random_port(local) % 10001;
}

static void random_ports_show_the_part_that_they_come_from(void) {
    begin();
    series(A, HOST_PORT, in_part);
    series(B, HOST_PORT + 100, in_part);
    filters(NAT_ADDRESS_AND_PORT_DEPENDENT, in_part(50000));
    is("port-restricted", "random", 0);
    CHECK(got.first > 38000 && got.first < 42000);
    CHECK(got.last > 48000 && got.last < 52000);
    begin();
    series(A, HOST_PORT, random_port);
    is("port-restricted", "random", 0);
    CHECK_EQ(got.first, 0);
}

static void a_liar_is_outvoted_and_named(void) {
    static const unsigned liars[] = {A, B, C};
    for (int nonsense = 0; nonsense < 3; nonsense++) {
        for (size_t i = 0; i < 3; i++) {
            unsigned liar = liars[i];
            begin();
            for (size_t j = 0; j < 3; j++) {
                external_last = nonsense == 1 && liars[j] == liar ? 77 : 2;
                bool lies = liars[j] == liar;
                ask(liars[j], PORT, 50000, !lies ? 50000 : nonsense == 2 ? 7 : random_port(0));
                series(liars[j], HOST_PORT + 100 * (int)j, lies ? random_port : equal);
            }
            filters(NAT_ADDRESS_AND_PORT_DEPENDENT, 50000);
            is("port-restricted", "equal", 0);
            struct ip named = server(liar);
            CHECK(ip_equal(&got.liar, &named));
            CHECK(got.confidence < 0.9);
        }
    }
}

static void two_that_disagree_are_both_doubted(void) {
    begin();
    series(A, HOST_PORT, equal);
    external_last = 77;
    series(B, HOST_PORT + 100, equal);
    classify();
    CHECK(got.confidence <= 0.5);
}

static void silence_is_blocked_the_surer_the_more_are_silent(void) {
    double before = 0;
    begin();
    for (unsigned last = A; last < A + 3; last++) {
        silent(last, PORT, 50000);
        is("blocked", "na", 0);
        CHECK(got.confidence > before);
        before = got.confidence;
    }
    begin();
    classify(); /* nothing was even asked */
    CHECK(got.confidence == 0);
}

static void tcp(bool udp_silent) {
    begin();
    given.protocol = NAT_TCP;
    given.udp_silent = udp_silent;
    ask(A, PORT, 50000, 50000);
    series(A, HOST_PORT, equal);
    for (int i = 0; i < 3; i++)
        silent(A, OTHER, 50000);
    silent(B, OTHER, 50000);
}

static void tcp_to_common_ports_only_is_blocked_where_udp_is(void) {
    tcp(true);
    is("blocked", "na", 0);
    CHECK(got.confidence >= 0.9);
    tcp(false); /* nobody listens there */
    is("port-restricted", "equal", 0);
    tcp(true);
    ask(A, OTHER, 50000, 50000);
    is("port-restricted", "equal", 0);
    CHECK(got.confidence <= 0.5);
    tcp(true);
    silent(B, OTHER, 50001);
    seen[given.seen_count - 1].refused = true; /* the port is closed, but reached */
    is("port-restricted", "equal", 0);
}

static void tcp_takes_the_filter_from_udp_and_says_so(void) {
    tcp(false);
    test_filter(B, true);
    is("full-cone", "equal", 0);
    CHECK(got.confidence <= 0.5 && got.confidence > 0.45);
    CHECK(got.delta_confidence > 0.9);
    given.stranger = -1; /* a relay was not let in */
    is("port-restricted", "equal", 0);
    given.stranger = 1;
    is("full-cone", "equal", 0);
    CHECK(got.confidence >= 0.9);
}

static void what_was_not_asked_is_not_known(void) {
    begin();
    ask(A, PORT, 50000, 41234);
    classify();
    CHECK(got.confidence < 0.5);
    begin();
    series(A, HOST_PORT, equal); /* no server that answers from elsewhere */
    is("port-restricted", "equal", 0);
    CHECK(got.confidence < 0.5);
    begin();
    series(A, HOST_PORT, equal);
    test_filter(B, false); /* nobody has ever heard from there */
    test_filter(A, false);
    is("port-restricted", "equal", 0);
    CHECK(got.confidence <= 0.7);
}

static void more_than_it_takes_is_left_out(void) {
    static struct nat_seen many[NAT_SEEN_MAX + 50];
    begin();
    for (size_t i = 0; i < NAT_SEEN_MAX + 50; i++) {
        given.seen_count = 0;
        ask(A, PORT, 1024 + (int)i, 1024 + (int)i);
        many[i] = seen[0];
    }
    given.seen = many;
    given.seen_count = NAT_SEEN_MAX + 50;
    is("port-restricted", "equal", 0);
}

int main(void) {
    RUN(each_filter_is_a_type);
    RUN(without_translation_the_filter_makes_the_difference);
    RUN(each_delta);
    RUN(dependent_by_one_and_preserving_differ_where_ports_jump);
    RUN(symmetric_maps_by_destination);
    RUN(other_peoples_flows_and_lost_answers_change_nothing);
    RUN(ports_come_around_at_the_end_of_the_range);
    RUN(random_ports_show_the_part_that_they_come_from);
    RUN(a_liar_is_outvoted_and_named);
    RUN(two_that_disagree_are_both_doubted);
    RUN(silence_is_blocked_the_surer_the_more_are_silent);
    RUN(tcp_to_common_ports_only_is_blocked_where_udp_is);
    RUN(tcp_takes_the_filter_from_udp_and_says_so);
    RUN(what_was_not_asked_is_not_known);
    RUN(more_than_it_takes_is_left_out);
    return check_report();
}
