/* Which external ports are given: ranges and their ends, what is taken, several addresses, noise.
 */
#include "spec/c/nat_router.h"

#include <math.h>
#include <stdlib.h>

static bool seen[65536];

static void range(uint16_t first, uint16_t last) {
    for (int i = 0; i < NAT_PROTOCOLS; i++) {
        config.protocols[i].first = first;
        config.protocols[i].last = last;
    }
}

/* Fills a range by as many mappings as it has ports; returns how many different ones came. */
static unsigned fill(unsigned count, uint16_t first, uint16_t last) {
    unsigned different = 0;
    memset(seen, 0, sizeof seen);
    for (unsigned i = 0; i < count; i++) {
        uint16_t port = udp_out(10 + i / 60000, (uint16_t)(1024 + i % 60000), SERVER, 1000);
        CHECK(port >= first && port <= last);
        different += !seen[port];
        seen[port] = true;
    }
    return different;
}

static void each_port_of_a_range_is_given_once(void) {
    static const struct {
        const char *delta;
        int value;
    } rows[] = {{"equal", 0},        {"preserving", 0}, {"independent", 1}, {"independent", -7},
                {"independent", 10}, {"dependent", 2},  {"random", 0}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        name("symmetric", rows[i].delta, rows[i].value);
        range(40000, 40999);
        start(i);
        CHECK_EQ(fill(1000, 40000, 40999), 1000);
        CHECK_EQ(udp_out(HOST, 999, SERVER, 1000), 0);
        CHECK_EQ(verdict, NAT_DROP);
        CHECK_EQ(reason, NAT_NO_PORT);
        CHECK_EQ(mappings(), 1000);
        CHECK(tcp_out(SYN, 999, SERVER, 1000) != 0); /* TCP has ports of its own */
        now_ms += 300 * SECOND;
        CHECK(udp_out(HOST, 999, SERVER, 1000) != 0);
    }
}

static void the_whole_range_can_be_used(void) {
    name("symmetric", "random", 0);
    range(1, 65535);
    start(1);
    CHECK_EQ(fill(65535, 1, 65535), 65535);
    CHECK_EQ(udp_out(HOST, 999, SERVER, 1000), 0);
    CHECK_EQ(reason, NAT_NO_PORT);
}

static void a_range_of_one(void) {
    name("symmetric", "independent", 5);
    range(4242, 4242);
    start(1);
    CHECK_EQ(udp_out(HOST, 5000, SERVER, 1000), 4242);
    CHECK_EQ(udp_out(HOST, 5001, SERVER, 1000), 0);
    CHECK_EQ(reason, NAT_NO_PORT);
}

static void equal_takes_the_next_one_when_it_is_taken(void) {
    router("port-restricted", "equal", 0);
    CHECK_EQ(udp_out(10, 5000, SERVER, 1000), 5000);
    CHECK_EQ(udp_out(11, 5000, SERVER, 1000), 5001);
    CHECK_EQ(udp_out(12, 5001, SERVER, 1000), 5002);
    CHECK_EQ(udp_out(12, 65535, SERVER, 1000), 65535);
    CHECK_EQ(udp_out(13, 65535, SERVER, 1000), 1024); /* at the other end of the range */
    CHECK(udp_out(12, 80, SERVER, 1000) >= 1024);     /* it cannot be equal */
}

static void preserving_keeps_one_distance_that_the_seed_chose(void) {
    unsigned first_distance = 0, different = 0;
    for (uint64_t seed = 0; seed < 200; seed++) {
        name("port-restricted", "preserving", 0);
        range(10000, 10099);
        start(seed);
        unsigned one = (udp_out(10, 10000, SERVER, 1000) + 100u - 10000) % 100;
        unsigned two = (udp_out(10, 10050, SERVER, 1000) + 100u - 10050) % 100;
        CHECK(one != 0);
        CHECK_EQ(one, two);
        first_distance = seed == 0 ? one : first_distance;
        different += one != first_distance;
        unsigned next = udp_out(11, 10050, SERVER, 1000) % 100u; /* taken: the next free one */
        CHECK_EQ(next, (50 + two + 1) % 100);
    }
    CHECK(different > 150);
}

static void independent_counts_on_from_the_last_one(void) {
    router("symmetric", "independent", 3);
    uint16_t last = udp_out(HOST, 50000, SERVER, 1);
    for (uint16_t i = 1; i < 50; i++) {
        uint16_t port = udp_out(HOST + i % 3u, (uint16_t)(50000 - 7 * (i / 2)), SERVER, i);
        CHECK_EQ(port, (last + 3 - 1024) % 64512 + 1024);
        last = port;
    }
    last = tcp_out(SYN, 50000, SERVER, 1); /* each transport counts for itself */
    CHECK_EQ(tcp_out(SYN, 50000, SERVER, 2), last + 3);
}

/* 40000 to 40009, steps of 4: what leaves the range comes in at the other end. */
static void steps_wrap_in_both_directions(void) {
    for (int value = -4; value <= 4; value += 8) {
        name("symmetric", "independent", value);
        range(40000, 40009);
        start(1);
        int last = udp_out(HOST, 5000, SERVER, 1) - 40000;
        for (uint16_t i = 2; i <= 5; i++) {
            int port = udp_out(HOST, 5000, SERVER, i) - 40000;
            CHECK_EQ(port, (last + value + 10) % 10);
            last = port;
        }
        /* The circle of five is full: the other five come, each once. */
        bool got[10] = {false};
        for (uint16_t i = 6; i <= 10; i++) {
            int port = udp_out(HOST, 5000, SERVER, i) - 40000;
            CHECK(port >= 0 && (port - last) % 2 != 0);
            CHECK(!got[port >= 0 ? port : 0]);
            got[port >= 0 ? port : 0] = true;
        }
    }
}

static void steps_pass_over_what_is_taken(void) {
    name("symmetric", "independent", 2);
    range(40000, 40099);
    start(1);
    uint16_t first = udp_out(HOST, 5000, SERVER, 1);
    for (uint16_t i = 2; i <= 50; i++)
        udp_out(HOST, 5000, SERVER, i);
    uint16_t ahead = udp_out(HOST, 5000, SERVER, 51); /* all of its circle is taken */
    CHECK(ahead != 0 && (ahead - first) % 2 != 0);
    CHECK_EQ(udp_out(HOST, 5000, SERVER, 52), ahead + 2 > 40099 ? ahead - 98 : ahead + 2);
    now_ms += 301 * SECOND;
    uint16_t held = udp_out(HOST, 5000, SERVER, 1); /* a long-lived one in the middle */
    uint16_t last = held;
    for (uint16_t i = 2; i <= 50; i++)
        last = udp_out(HOST, 5000, SERVER, i);
    now_ms += 200 * SECOND;
    udp_out(HOST, 5000, SERVER, 1);
    now_ms += 101 * SECOND;
    CHECK_EQ(mappings(), 1);
    unsigned passed_over = 0;
    for (uint16_t i = 0; i < 49; i++) {
        uint16_t port = udp_out(HOST, 6000, SERVER, (uint16_t)(100 + i));
        uint16_t next = (uint16_t)((last + 2 - 40000) % 100 + 40000);
        passed_over += next == held;
        CHECK_EQ(port, next == held ? (held + 2 - 40000) % 100 + 40000 : next);
        last = port;
    }
    CHECK_EQ(passed_over, 1);
}

/* Last + value when the local port is the last one + 1, else random. */
static void dependent_follows_the_local_port(void) {
    router("symmetric", "dependent", 5);
    unsigned followed = 0, jumped = 0;
    uint16_t local = 20000, last = udp_out(HOST, local, SERVER, 1);
    for (int i = 0; i < 300; i++) {
        bool next = i % 3 != 0;
        local = (uint16_t)(local + (next ? 1 : 2));
        uint16_t port = udp_out(HOST, local, SERVER, 1);
        bool in_step = port == (last + 5 - 1024) % 64512 + 1024;
        followed += next && in_step;
        jumped += !next && !in_step;
        last = port;
    }
    CHECK(followed >= 198); /* a taken one may be passed over */
    CHECK(jumped >= 99);
    last = udp_out(HOST, local, SERVER, 2); /* the same local port again is not the next one */
    CHECK(last != udp_out(HOST, local, SERVER, 3) - 5);
}

static void random_is_even_and_the_seed_decides(void) {
    unsigned quarters[4] = {0};
    uint16_t first[200];
    router("symmetric", "random", 0);
    for (uint16_t i = 0; i < 4000; i++) {
        uint16_t port = udp_out(HOST, 5000, SERVER, (uint16_t)(i + 1));
        quarters[(port - 1024) / 16128]++;
        if (i < 200)
            first[i] = port;
    }
    for (int i = 0; i < 4; i++)
        CHECK(quarters[i] > 850 && quarters[i] < 1150);
    start(1);
    for (uint16_t i = 0; i < 200; i++)
        CHECK_EQ(udp_out(HOST, 5000, SERVER, (uint16_t)(i + 1)), first[i]);
    start(2);
    unsigned same = 0;
    for (uint16_t i = 0; i < 200; i++)
        same += udp_out(HOST, 5000, SERVER, (uint16_t)(i + 1)) == first[i];
    CHECK(same < 5);
}

static void random_is_even_beside_what_is_taken(void) {
    name("symmetric", "equal", 0);
    range(40000, 40999);
    start(1);
    for (uint16_t i = 0; i < 500; i++)
        udp_out(HOST, (uint16_t)(40000 + i), SERVER, 1);
    config.protocols[NAT_UDP].delta = NAT_DELTA_RANDOM;
    nat_model_configure(model, &config, false);
    unsigned first_fifth = 0;
    for (uint16_t i = 0; i < 50; i++)
        first_fifth += udp_out(HOST, 5000, OTHER, i) < 40600;
    CHECK(first_fifth > 2 && first_fifth < 20);
}

/* Several external addresses ------------------------------------------------------------------- */

static unsigned which_address(void) {
    unsigned address = sent.source.bytes[3] - 2u;
    CHECK(address < config.external_count);
    return address % config.external_count;
}

static void addresses(unsigned count, bool paired) {
    config.external_count = count;
    config.paired = paired;
    for (unsigned i = 0; i < count; i++)
        config.external[i] = external_ip(i);
}

static void a_paired_host_keeps_its_address(void) {
    unsigned hosts[4] = {0};
    name("symmetric", "random", 0);
    addresses(4, true);
    start(1);
    for (unsigned host = 10; host < 110; host++) {
        CHECK(udp_out(host, 5000, SERVER, 1) != 0);
        unsigned address = which_address();
        hosts[address]++;
        for (uint16_t i = 0; i < 10; i++) {
            udp_out(host, (uint16_t)(6000 + i), OTHER, i);
            CHECK_EQ(which_address(), address);
            go_out(NAT_TCP, SYN, host, i, server_ip(OTHER), i);
            CHECK_EQ(which_address(), address);
        }
    }
    for (int i = 0; i < 4; i++)
        CHECK(hosts[i] > 10);
}

static void without_pairing_any_address_is_used(void) {
    unsigned used[4] = {0};
    name("symmetric", "random", 0);
    addresses(4, false);
    start(1);
    for (uint16_t i = 0; i < 400; i++) {
        uint16_t port = udp_out(HOST, 5000, SERVER, i);
        unsigned address = which_address();
        used[address]++;
        CHECK(go_in(NAT_UDP, 0, server_ip(SERVER), i, external_ip(address), port));
        CHECK(!go_in(NAT_UDP, 0, server_ip(SERVER), i, external_ip((address + 1) % 4), port));
    }
    for (int i = 0; i < 4; i++)
        CHECK(used[i] > 60);
}

static void each_address_has_ports_of_its_own(void) {
    name("port-restricted", "equal", 0);
    addresses(3, false);
    range(4000, 4009);
    for (uint64_t seed = 0; seed < 10; seed++) {
        start(seed);
        unsigned times[10] = {0};
        for (uint16_t i = 0; i < 30; i++) {
            uint16_t port = udp_out(HOST, (uint16_t)(4000 + i), SERVER, 80);
            CHECK(port >= 4000 && port <= 4009);
            times[port % 10]++;
        }
        for (int i = 0; i < 10; i++)
            CHECK_EQ(times[i], 3);
        CHECK_EQ(udp_out(HOST, 4099, SERVER, 80), 0);
        CHECK_EQ(reason, NAT_NO_PORT);
    }
    config.paired = true; /* a host may not go elsewhere when its address has no port left */
    start(1);
    for (uint16_t i = 0; i < 10; i++)
        CHECK(udp_out(HOST, (uint16_t)(4000 + i), SERVER, 80) != 0);
    CHECK_EQ(udp_out(HOST, 4099, SERVER, 80), 0);
    CHECK_EQ(reason, NAT_NO_PORT);
}

/* Noise ---------------------------------------------------------------------------------------- */

/* How many ports others took between two of ours. */
static unsigned taken_between(uint64_t ms) {
    static uint16_t remote;
    uint16_t before = udp_out(HOST, 5000, SERVER, ++remote);
    now_ms += ms;
    uint16_t after = udp_out(HOST, 5000, SERVER, ++remote);
    return (after - before + 64512u) % 64512u - 1;
}

static void noise_takes_ports_at_its_rate(void) {
    name("symmetric", "independent", 1);
    config.noise = 50;
    start(1);
    unsigned sum = 0, none = 0;
    for (int i = 0; i < 1000; i++) {
        unsigned count = taken_between(100); /* 5 on average, by a Poisson process */
        sum += count;
        none += count == 0;
    }
    CHECK(sum > 4700 && sum < 5300);
    CHECK(none > 1 && none < 20); /* 1000 / e^5 = 6.7 */
    sum = 0;
    for (int i = 0; i < 1000; i++)
        sum += taken_between(1);
    CHECK(sum > 20 && sum < 90);
    config.noise = 0;
    nat_model_configure(model, &config, false);
    for (int i = 0; i < 100; i++)
        CHECK_EQ(taken_between(100), 0);
}

static void noise_breaks_what_depends_on_the_last_port(void) {
    name("symmetric", "dependent", 2);
    config.noise = 100;
    start(1);
    unsigned followed = 0;
    uint16_t last = udp_out(HOST, 20000, SERVER, 1);
    for (uint16_t i = 1; i <= 100; i++) {
        now_ms += 50; /* e^-5: nobody comes between */
        uint16_t port = udp_out(HOST, (uint16_t)(20000 + i), SERVER, 1);
        followed += port == last + 2;
        last = port;
    }
    CHECK(followed < 6);
}

/* The same packets at the same times meet the same noise, however often the time was asked for. */
static void noise_is_the_seed_s(void) {
    uint16_t ports[50];
    for (int run = 0; run < 2; run++) {
        name("symmetric", "random", 0);
        config.noise = 1000;
        config.protocols[NAT_UDP].idle_s = 1; /* so that ours end between two packets */
        range(40000, 40099);                  /* so that many ports are taken when one is drawn */
        start(7);
        mappings(); /* the others begin with the first packet or question */
        for (uint16_t i = 0; i < 50; i++) {
            for (int pause = 0; pause < 400; pause++) {
                now_ms++;
                if (run == 1)
                    mappings();
            }
            uint16_t port = udp_out(HOST, 5000, SERVER, i);
            if (run == 0)
                ports[i] = port;
            CHECK_EQ(port, ports[i]);
        }
    }
}

/* Ports of others are none of ours, come back, and are never more than half of all. */
static void noise_holds_ports_for_a_while_and_leaves_half(void) {
    name("symmetric", "random", 0);
    config.noise = 1000;
    range(40000, 40199);
    start(1);
    mappings();
    now_ms += 10 * SECOND;
    unsigned ours = 0;
    for (uint16_t i = 0; i < 200; i++)
        ours += udp_out(HOST, 5000, SERVER, i) != 0;
    CHECK(ours >= 100 && ours < 170);
    CHECK_EQ(reason, NAT_NO_PORT);
    CHECK_EQ(mappings(), ours);
    CHECK(!udp_in(SERVER, 0, 39999));
    config.noise = 0; /* what others held is free again */
    nat_model_configure(model, &config, false);
    for (uint16_t i = 200; i < 400 - ours; i++)
        CHECK(udp_out(HOST, 5000, SERVER, i) != 0);
    CHECK_EQ(udp_out(HOST, 5000, SERVER, 999), 0);
    now_ms += 20 * SECOND; /* when others' flows would have ended, ours go on */
    CHECK_EQ(udp_out(HOST, 5000, SERVER, 999), 0);
    CHECK_EQ(mappings(), 200);
}

static void flows_of_others_end(void) {
    name("symmetric", "random", 0);
    config.noise = 5;
    range(40000, 41999);
    start(1);
    mappings();
    now_ms += 1000 * SECOND;
    unsigned ours = 0;
    for (uint16_t i = 0; i < 2000; i++)
        ours += udp_out(HOST, 5000, SERVER, i) != 0;
    CHECK(ours > 1900 && ours < 1980); /* 5 flows a second hold a port for 10 seconds */
}

static void a_long_silence_costs_little(void) {
    name("symmetric", "independent", 1);
    config.noise = 100000;
    start(1);
    CHECK(udp_out(HOST, 5000, SERVER, 1) != 0);
    for (int i = 0; i < 5; i++) {
        now_ms += 1000ull * 3600 * 24 * 365; /* 6 * 10^12 flows, if each came */
        CHECK(udp_out(HOST, 5000, SERVER, 1) != 0);
    }
}

int main(void) {
    RUN(each_port_of_a_range_is_given_once);
    RUN(the_whole_range_can_be_used);
    RUN(a_range_of_one);
    RUN(equal_takes_the_next_one_when_it_is_taken);
    RUN(preserving_keeps_one_distance_that_the_seed_chose);
    RUN(independent_counts_on_from_the_last_one);
    RUN(steps_wrap_in_both_directions);
    RUN(steps_pass_over_what_is_taken);
    RUN(dependent_follows_the_local_port);
    RUN(random_is_even_and_the_seed_decides);
    RUN(random_is_even_beside_what_is_taken);
    RUN(a_paired_host_keeps_its_address);
    RUN(without_pairing_any_address_is_used);
    RUN(each_address_has_ports_of_its_own);
    RUN(noise_takes_ports_at_its_rate);
    RUN(noise_breaks_what_depends_on_the_last_port);
    RUN(noise_is_the_seed_s);
    RUN(noise_holds_ports_for_a_while_and_leaves_half);
    RUN(flows_of_others_end);
    RUN(a_long_silence_costs_little);
    return report();
}
