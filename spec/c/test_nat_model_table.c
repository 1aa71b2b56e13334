/* The table: how long mappings and filters stay, how many there may be, and what `set` leaves. */
#include "spec/c/nat_router.h"

enum { IDLE = 300 * SECOND };

static void what_goes_out_refreshes(void) {
    router("port-restricted", "random", 0);
    uint16_t external = udp_out(HOST, 5000, SERVER, 1000);
    for (int i = 0; i < 10; i++) {
        now_ms += IDLE - 1;
        CHECK_EQ(udp_out(HOST, 5000, SERVER, 1000), external);
        CHECK_EQ(reason, NAT_MAPPED);
    }
    now_ms += IDLE - 1;
    CHECK(udp_in(SERVER, 1000, external));
    now_ms += 1; /* what came in did not refresh it */
    CHECK(!udp_in(SERVER, 1000, external));
    CHECK_EQ(reason, NAT_NO_MAPPING);
    CHECK_EQ(mappings(), 0);
    CHECK(udp_out(HOST, 5000, SERVER, 1000) != external);
    CHECK_EQ(reason, NAT_MAPPED_NEW);
}

/* A filter closes when its own remote was not written to for so long; the mapping stays for the
 * others. */
static void each_remote_has_its_own_time(void) {
    router("restricted", "random", 0);
    uint16_t external = udp_out(HOST, 5000, SERVER, 1000);
    now_ms += 200 * SECOND;
    CHECK_EQ(udp_out(HOST, 5000, SERVER, 1001), external);
    CHECK_EQ(udp_out(HOST, 5000, OTHER, 1000), external);
    now_ms += 100 * SECOND;
    CHECK(udp_in(SERVER, 1000, external)); /* by the address's other port */
    now_ms += 150 * SECOND;
    udp_out(HOST, 5000, OTHER, 1000);
    now_ms += 50 * SECOND;
    CHECK(!udp_in(SERVER, 1000, external));
    CHECK_EQ(reason, NAT_FILTERED);
    CHECK(udp_in(OTHER, 1000, external));
    CHECK_EQ(mappings(), 1);
    now_ms += 250 * SECOND;
    CHECK_EQ(mappings(), 0);
}

static void times_are_those_of_the_configuration(void) {
    name("port-restricted", "equal", 0);
    config.protocols[NAT_UDP].idle_s = 120;
    config.protocols[NAT_ICMP].idle_s = 60;
    config.time_scale = 0.1;
    start(1);
    udp_out(HOST, 5000, SERVER, 1000);
    go_out(NAT_ICMP, 0, HOST, 7000, server_ip(SERVER), 0);
    CHECK_EQ(mappings(), 2);
    now_ms += 6 * SECOND - 1;
    CHECK_EQ(mappings(), 2);
    now_ms += 1;
    CHECK_EQ(mappings(), 1);
    now_ms += 6 * SECOND - 1;
    CHECK_EQ(mappings(), 1);
    now_ms += 1;
    CHECK_EQ(mappings(), 0);
}

static void time_that_goes_back_is_taken_for_none(void) {
    router("port-restricted", "equal", 0);
    udp_out(HOST, 5000, SERVER, 1000);
    now_ms -= 3600 * SECOND;
    CHECK(udp_in(SERVER, 1000, 5000));
    CHECK_EQ(udp_out(HOST, 5001, SERVER, 1000), 5001);
    CHECK_EQ(mappings(), 2);
}

static void a_full_table_takes_no_more(void) {
    name("port-restricted", "equal", 0);
    config.table_limit = 3;
    start(1);
    for (uint16_t i = 0; i < 3; i++)
        CHECK(udp_out(HOST, (uint16_t)(5000 + i), SERVER, 1000) != 0);
    CHECK_EQ(udp_out(HOST, 6000, SERVER, 1000), 0);
    CHECK_EQ(verdict, NAT_DROP);
    CHECK_EQ(reason, NAT_TABLE_FULL);
    CHECK_EQ(tcp_out(SYN, 6000, SERVER, 1000), 0); /* one table for all */
    CHECK_EQ(reason, NAT_TABLE_FULL);
    CHECK_EQ(udp_out(HOST, 5000, SERVER, 1000), 5000); /* what is there goes on */
    CHECK(udp_in(SERVER, 1000, 5000));
    now_ms += IDLE - 1;
    udp_out(HOST, 5000, SERVER, 1000);
    now_ms += 1; /* the two others have gone */
    CHECK_EQ(udp_out(HOST, 6000, SERVER, 1000), 6000);
    CHECK_EQ(mappings(), 2);
}

/* One mapping may have 4 times as many sessions as the table has mappings, all together. */
static void sessions_are_bounded_too(void) {
    name("full-cone", "equal", 0);
    config.table_limit = 100;
    config.protocols[NAT_TCP].uninvited = NAT_UNINVITED_RESET;
    start(1);
    for (uint16_t i = 0; i < 400; i++)
        CHECK_EQ(udp_out(HOST, 5000, SERVER, i), 5000);
    CHECK_EQ(udp_out(HOST, 5000, SERVER, 400), 0);
    CHECK_EQ(reason, NAT_TABLE_FULL);
    tcp_out(SYN, 5000, SERVER, 1);
    CHECK_EQ(reason, NAT_TABLE_FULL);
    CHECK_EQ(mappings(), 1); /* a mapping without session is not left */
    CHECK(!tcp_in(SYN, OTHER, 1, 5000));
    now_ms += IDLE;
    CHECK_EQ(tcp_out(SYN, 5000, SERVER, 0), 5000); /* and has not kept its port */
    for (uint16_t i = 1; i < 400; i++)
        CHECK(tcp_in(SYN, OTHER, i, 5000)); /* strangers may fill it where filters are open */
    CHECK(!tcp_in(SYN, OTHER, 400, 5000));
    CHECK_EQ(reason, NAT_TABLE_FULL);
    CHECK_EQ(verdict, NAT_DROP); /* it was welcome: no answer */
}

static void many_mappings_stay_apart(void) {
    enum { COUNT = 60000 };
    static uint16_t external[COUNT];
    router("symmetric", "random", 0);
    for (unsigned i = 0; i < COUNT; i++) {
        external[i] = udp_out(10 + i % 100, (uint16_t)(2000 + i / 100), 1 + i % 7, 1000);
        CHECK(external[i] != 0);
    }
    CHECK_EQ(mappings(), COUNT);
    for (unsigned i = 0; i < COUNT; i++) {
        CHECK(udp_in(1 + i % 7, 1000, external[i]));
        CHECK(is_host(10 + i % 100, (uint16_t)(2000 + i / 100)));
        CHECK(!udp_in(1 + (i + 1) % 7, 1000, external[i]));
    }
    now_ms += IDLE - 1; /* half of them go on */
    for (unsigned i = 0; i < COUNT; i += 2)
        CHECK_EQ(udp_out(10 + i % 100, (uint16_t)(2000 + i / 100), 1 + i % 7, 1000), external[i]);
    now_ms += 1;
    CHECK_EQ(mappings(), COUNT / 2);
    for (unsigned i = 0; i < COUNT; i++)
        CHECK_EQ(udp_in(1 + i % 7, 1000, external[i]), i % 2 == 0);
    now_ms += IDLE;
    CHECK_EQ(mappings(), 0);
}

/* Configuration -------------------------------------------------------------------------------- */

static void mappings_outlive_a_change(void) {
    router("full-cone", "equal", 0);
    CHECK_EQ(udp_out(HOST, 5000, SERVER, 1000), 5000);
    CHECK_EQ(tcp_out(SYN, 5000, SERVER, 1000), 5000);
    name("symmetric", "random", 0);
    nat_model_configure(model, &config, false);
    CHECK_EQ(mappings(), 2);
    CHECK_EQ(udp_out(HOST, 5000, SERVER, 1000), 5000); /* what has a session keeps its mapping */
    CHECK_EQ(tcp_out(ACK, 5000, SERVER, 1000), 5000);
    CHECK(!udp_in(OTHER, 1000, 5000)); /* filters are the new ones */
    CHECK(udp_in(SERVER, 1000, 5000));
    uint16_t external = udp_out(HOST, 5000, OTHER, 1000); /* and so are new mappings */
    CHECK(external != 5000);
    CHECK_EQ(udp_out(HOST + 1, 5000, SERVER, 1000) == 5000, false);
    nat_model_configure(model, &config, true);
    CHECK_EQ(mappings(), 0);
    CHECK(!udp_in(SERVER, 1000, 5000));
    CHECK_EQ(tcp_out(ACK, 5000, SERVER, 1000), 0);
}

static void ports_stay_taken_when_others_are_given(void) {
    name("port-restricted", "equal", 0);
    start(1);
    CHECK_EQ(udp_out(HOST, 5000, SERVER, 1000), 5000);
    config.protocols[NAT_UDP].first = 5000;
    config.protocols[NAT_UDP].last = 5001;
    nat_model_configure(model, &config, false);
    CHECK_EQ(udp_out(HOST + 1, 5000, OTHER, 1000), 5001);
    CHECK_EQ(udp_out(HOST + 2, 5000, 3, 1000), 0);
    CHECK_EQ(reason, NAT_NO_PORT);
    nat_model_configure(model, &config, true);
    CHECK_EQ(udp_out(HOST + 2, 5000, 3, 1000), 5000);
}

static void another_external_address(void) {
    name("port-restricted", "equal", 0);
    config.external[1] = external_ip(1);
    config.external_count = 2;
    config.paired = false;
    start(1);
    unsigned at[2] = {0};
    for (uint16_t i = 0; i < 100; i++) {
        udp_out(HOST, (uint16_t)(5000 + i), SERVER, 1000);
        at[sent.source.bytes[3] - 2]++;
    }
    config.external[0] = external_ip(1); /* the first is gone, and the second is the first now */
    config.external[1] = external_ip(5);
    nat_model_configure(model, &config, false);
    CHECK_EQ(mappings(), at[1]);
    unsigned live = 0;
    for (uint16_t i = 0; i < 100; i++) {
        CHECK(!udp_in(SERVER, 1000, (uint16_t)(5000 + i)));
        live += go_in(NAT_UDP, 0, server_ip(SERVER), 1000, external_ip(1), (uint16_t)(5000 + i));
    }
    CHECK_EQ(live, at[1]);
    for (uint16_t i = 0; i < 200; i++) { /* no endpoint is given twice */
        CHECK(udp_out(HOST, (uint16_t)(5000 + i), SERVER, 1000) != 0);
        struct nat_packet back = sent;
        CHECK(go_in(NAT_UDP, 0, server_ip(SERVER), 1000, back.source, back.source_port));
        CHECK(is_host(HOST, (uint16_t)(5000 + i)));
    }
}

static void times_change_for_what_is_there(void) {
    router("port-restricted", "equal", 0);
    udp_out(HOST, 5000, SERVER, 1000);
    now_ms += 200 * SECOND;
    mappings();
    config.protocols[NAT_UDP].idle_s = 120;
    nat_model_configure(model, &config, false);
    CHECK_EQ(mappings(), 0);
}

static void between_translating_and_not(void) {
    router("port-restricted", "random", 0);
    udp_out(HOST, 5000, SERVER, 1000);
    name("udp-firewall", "na", 0);
    nat_model_configure(model, &config, false);
    CHECK_EQ(udp_out(HOST, 5000, OTHER, 1000), 5000);
    CHECK(go_in(NAT_UDP, 0, server_ip(OTHER), 1000, inside_ip(HOST), 5000));
    name("port-restricted", "random", 0);
    nat_model_configure(model, &config, false);
    struct ip external = external_ip(0);
    CHECK(udp_out(HOST, 5000, 3, 1000) != 0);
    CHECK(ip_equal(&sent.source, &external));
    name("open", "na", 0);
    config.external_count = 0;
    nat_model_configure(model, &config, false);
    CHECK_EQ(mappings(), 1); /* the address that the others had is gone */
}

static void what_cannot_be_changes_nothing(void) {
    router("port-restricted", "equal", 0);
    udp_out(HOST, 5000, SERVER, 1000);
    struct nat_config bad = config;
    bad.time_scale = -1;
    nat_model_configure(model, &bad, true);
    CHECK_EQ(mappings(), 1);
    CHECK_EQ(udp_out(HOST, 5001, SERVER, 1000), 5001);
}

int main(void) {
    RUN(what_goes_out_refreshes);
    RUN(each_remote_has_its_own_time);
    RUN(times_are_those_of_the_configuration);
    RUN(time_that_goes_back_is_taken_for_none);
    RUN(a_full_table_takes_no_more);
    RUN(sessions_are_bounded_too);
    RUN(many_mappings_stay_apart);
    RUN(mappings_outlive_a_change);
    RUN(ports_stay_taken_when_others_are_given);
    RUN(another_external_address);
    RUN(times_change_for_what_is_there);
    RUN(between_translating_and_not);
    RUN(what_cannot_be_changes_nothing);
    return report();
}
