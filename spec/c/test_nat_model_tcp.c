/* TCP: who may open, how long what lives, and how it ends; a SYN that nobody asked for. */
#include "spec/c/nat_router.h"

enum { PORT = 4433, TRANSITORY = 240 * SECOND, ESTABLISHED = 7440 * SECOND };

static uint16_t external;

/* Whether the session is there just before so long without a packet, and gone just after. */
static bool lives_for(uint64_t ms) {
    now_ms += ms - 1;
    bool before = mappings() == 1;
    now_ms += 1;
    return before && mappings() == 0;
}

static void open_out(void) {
    external = tcp_out(SYN, 5000, SERVER, PORT);
    CHECK(external != 0);
}

static void connect_out(void) {
    open_out();
    CHECK(tcp_in(SYN | ACK, SERVER, PORT, external));
    CHECK(is_host(HOST, 5000));
    CHECK_EQ(tcp_out(ACK, 5000, SERVER, PORT), external);
}

static void a_connection_that_opens_is_transitory(void) {
    router("port-restricted", "random", 0);
    open_out();
    CHECK(lives_for(TRANSITORY));
    open_out();
    now_ms += TRANSITORY - 1;
    CHECK(tcp_in(SYN | ACK, SERVER, PORT, external)); /* either direction refreshes */
    CHECK(lives_for(TRANSITORY));
}

static void both_syns_and_their_acks_establish(void) {
    router("port-restricted", "random", 0);
    connect_out();
    CHECK(lives_for(ESTABLISHED));
    connect_out();
    now_ms += ESTABLISHED - 1;
    CHECK(tcp_in(ACK, SERVER, PORT, external));
    CHECK(lives_for(ESTABLISHED));
    connect_out();
    now_ms += ESTABLISHED - 1;
    CHECK(tcp_out(ACK, 5000, SERVER, PORT) == external);
    CHECK(lives_for(ESTABLISHED));
    open_out();
    CHECK_EQ(tcp_out(ACK, 5000, SERVER, PORT), external); /* of what? nobody has answered yet */
    CHECK(tcp_in(SYN | ACK, SERVER, PORT, external));
    CHECK(lives_for(TRANSITORY));
}

/* RFC 9293, figure 8: each SYN is answered by SYN and ACK. */
static void a_simultaneous_open_passes(void) {
    router("symmetric", "random", 0);
    open_out();
    CHECK(tcp_in(SYN, SERVER, PORT, external));
    CHECK_EQ(reason, NAT_MAPPED);
    CHECK(is_host(HOST, 5000));
    CHECK_EQ(tcp_out(SYN | ACK, 5000, SERVER, PORT), external);
    CHECK(tcp_in(SYN | ACK, SERVER, PORT, external));
    CHECK(lives_for(ESTABLISHED));
}

static void a_syn_that_was_too_early_may_come_again(void) {
    router("port-restricted", "equal", 0);
    CHECK(!tcp_in(SYN, SERVER, PORT, 5000));
    CHECK_EQ(reason, NAT_NO_MAPPING);
    CHECK_EQ(verdict, NAT_DROP);
    tcp_out(SYN, 5000, OTHER, PORT);
    CHECK(!tcp_in(SYN, SERVER, PORT, 5000));
    CHECK_EQ(reason, NAT_FILTERED);
    open_out();
    CHECK(tcp_in(SYN, SERVER, PORT, 5000));
}

static void a_filter_that_is_open_lets_a_syn_in(void) {
    router("full-cone", "random", 0);
    external = tcp_out(SYN, 5000, OTHER, 80);
    CHECK(tcp_in(SYN, SERVER, PORT, external));
    CHECK(is_host(HOST, 5000));
    CHECK_EQ(tcp_out(SYN | ACK, 5000, SERVER, PORT), external);
    CHECK(tcp_in(ACK, SERVER, PORT, external));
    now_ms += TRANSITORY;
    CHECK_EQ(mappings(), 1); /* for the one that came from outside is established */
    CHECK(tcp_in(ACK, SERVER, PORT, external));
    CHECK(!tcp_in(ACK, OTHER, 80, external));
    CHECK_EQ(reason, NAT_BAD_STATE);
    CHECK(lives_for(ESTABLISHED));
}

static void what_is_in_the_middle_of_nothing_is_dropped(void) {
    static const uint8_t flags[] = {0,   ACK,       SYN | ACK, FIN | ACK,
                                    RST, RST | ACK, SYN | FIN, SYN | RST};
    router("full-cone", "equal", 0);
    for (size_t i = 0; i < sizeof flags; i++) {
        CHECK_EQ(tcp_out(flags[i], 5000, SERVER, PORT), 0);
        CHECK_EQ(verdict, NAT_DROP);
        CHECK_EQ(reason, NAT_BAD_STATE);
    }
    CHECK_EQ(mappings(), 0);
    tcp_out(SYN, 5000, OTHER, 80);
    for (size_t i = 0; i < sizeof flags; i++) {
        CHECK(!tcp_in(flags[i], SERVER, PORT, 5000));
        CHECK_EQ(verdict, NAT_DROP);
        CHECK_EQ(reason, NAT_BAD_STATE);
        CHECK_EQ(tcp_out(flags[i], 5000, SERVER, PORT), 0); /* a mapping is not enough */
    }
}

/* One FIN leaves the other half open; after both it is soon over. */
static void both_fins_end_it(void) {
    router("port-restricted", "random", 0);
    connect_out();
    CHECK_EQ(tcp_out(FIN | ACK, 5000, SERVER, PORT), external);
    CHECK(lives_for(ESTABLISHED));
    connect_out();
    CHECK(tcp_in(FIN | ACK, SERVER, PORT, external));
    CHECK(lives_for(ESTABLISHED));
    connect_out();
    CHECK_EQ(tcp_out(FIN | ACK, 5000, SERVER, PORT), external);
    CHECK(tcp_in(FIN | ACK, SERVER, PORT, external));
    CHECK_EQ(tcp_out(ACK, 5000, SERVER, PORT), external); /* the last ACK passes */
    CHECK(lives_for(TRANSITORY));
}

static void a_reset_from_either_side_ends_it(void) {
    for (int inbound = 0; inbound < 2; inbound++)
        for (int established = 0; established < 2; established++) {
            router("port-restricted", "random", 0);
            if (established)
                connect_out();
            else
                open_out();
            if (inbound)
                CHECK(tcp_in(RST | ACK, SERVER, PORT, external));
            else
                CHECK_EQ(tcp_out(RST, 5000, SERVER, PORT), external);
            now_ms += 5 * SECOND; /* what was on its way still passes, and refreshes nothing */
            CHECK(tcp_in(ACK, SERVER, PORT, external));
            CHECK_EQ(tcp_out(ACK, 5000, SERVER, PORT), external);
            CHECK(tcp_in(RST, SERVER, PORT, external));
            now_ms += 5 * SECOND - 1;
            CHECK_EQ(mappings(), 1);
            now_ms += 1;
            CHECK_EQ(mappings(), 0);
            CHECK(!tcp_in(ACK, SERVER, PORT, external));
        }
}

/* A peer's router may answer our SYN by RST; the next try begins anew, from the same ports. */
static void a_syn_begins_again_what_is_over(void) {
    router("port-restricted", "random", 0);
    open_out();
    uint16_t first = external;
    CHECK(tcp_in(RST | ACK, SERVER, PORT, external));
    CHECK(!tcp_in(SYN, SERVER, PORT, external)); /* our SYN is over: this one is uninvited */
    CHECK_EQ(reason, NAT_FILTERED);
    open_out();
    CHECK_EQ(external, first);
    CHECK(tcp_in(SYN, SERVER, PORT, external));
    CHECK(lives_for(TRANSITORY));
    connect_out();
    CHECK(tcp_in(FIN | ACK, SERVER, PORT, external));
    tcp_out(FIN | ACK, 5000, SERVER, PORT);
    CHECK(!tcp_in(SYN, SERVER, PORT, external));
    connect_out();
    CHECK(lives_for(ESTABLISHED));
    router("full-cone", "random", 0); /* where filters are open, the other side may begin too */
    connect_out();
    CHECK(tcp_in(RST, SERVER, PORT, external));
    CHECK(tcp_in(SYN, SERVER, PORT, external));
    CHECK(lives_for(TRANSITORY));
}

static void a_syn_in_a_living_connection_changes_nothing(void) {
    router("port-restricted", "random", 0);
    connect_out();
    open_out();
    CHECK(tcp_in(SYN, SERVER, PORT, external));
    CHECK(lives_for(ESTABLISHED));
}

static void uninvited_syns_get_what_is_asked_for(void) {
    static const enum nat_verdict verdicts[] = {NAT_DROP, NAT_ANSWER_RESET, NAT_ANSWER_UNREACHABLE};
    for (enum nat_uninvited what = NAT_UNINVITED_DROP; what <= NAT_UNINVITED_UNREACHABLE; what++) {
        name("port-restricted", "equal", 0);
        config.protocols[NAT_TCP].uninvited = config.protocols[NAT_UDP].uninvited = what;
        config.table_limit = 1;
        start(1);
        CHECK(!tcp_in(SYN, SERVER, PORT, 5000)); /* unmapped */
        CHECK_EQ(verdict, verdicts[what]);
        CHECK_EQ(reason, NAT_NO_MAPPING);
        open_out();
        CHECK(!tcp_in(SYN, OTHER, PORT, 5000)); /* filtered */
        CHECK_EQ(verdict, verdicts[what]);
        CHECK_EQ(reason, NAT_FILTERED);
        CHECK(tcp_in(SYN, SERVER, PORT, 5000)); /* invited */
        CHECK_EQ(verdict, NAT_PASS);
        static const uint8_t others[] = {SYN | ACK, ACK, FIN | ACK, RST, SYN | RST, 0};
        for (size_t i = 0; i < sizeof others; i++) {
            CHECK(!tcp_in(others[i], OTHER, PORT, 5000));
            CHECK_EQ(verdict, NAT_DROP);
            CHECK(!tcp_in(others[i], OTHER, PORT, 6000));
            CHECK_EQ(verdict, NAT_DROP);
        }
        CHECK_EQ(tcp_out(SYN, 6000, OTHER, PORT), 0); /* the table is full */
        CHECK_EQ(verdict, NAT_DROP);
        CHECK(!udp_in(SERVER, PORT, 7000)); /* TCP's affair alone */
        CHECK_EQ(verdict, NAT_DROP);
    }
}

static void a_firewall_answers_too(void) {
    name("udp-firewall", "na", 0);
    config.protocols[NAT_TCP].uninvited = NAT_UNINVITED_RESET;
    start(1);
    CHECK(!go_in(NAT_TCP, SYN, server_ip(SERVER), PORT, inside_ip(HOST), 22));
    CHECK_EQ(verdict, NAT_ANSWER_RESET);
    CHECK_EQ(tcp_out(ACK, 5000, SERVER, PORT), 0);
    CHECK_EQ(reason, NAT_BAD_STATE);
    external = tcp_out(SYN, 5000, SERVER, PORT);
    CHECK(go_in(NAT_TCP, SYN | ACK, server_ip(SERVER), PORT, inside_ip(HOST), 5000));
    CHECK_EQ(tcp_out(ACK, 5000, SERVER, PORT), 5000);
    CHECK(lives_for(ESTABLISHED));
}

static void times_are_scaled(void) {
    name("port-restricted", "random", 0);
    config.time_scale = 0.01;
    config.protocols[NAT_TCP].established_s = 10000;
    config.protocols[NAT_TCP].transitory_s = 300;
    start(1);
    connect_out();
    CHECK(lives_for(100 * SECOND));
    open_out();
    CHECK(lives_for(3 * SECOND));
    open_out();
    tcp_out(RST, 5000, SERVER, PORT);
    CHECK(lives_for(100));
}

int main(void) {
    RUN(a_connection_that_opens_is_transitory);
    RUN(both_syns_and_their_acks_establish);
    RUN(a_simultaneous_open_passes);
    RUN(a_syn_that_was_too_early_may_come_again);
    RUN(a_filter_that_is_open_lets_a_syn_in);
    RUN(what_is_in_the_middle_of_nothing_is_dropped);
    RUN(both_fins_end_it);
    RUN(a_reset_from_either_side_ends_it);
    RUN(a_syn_begins_again_what_is_over);
    RUN(a_syn_in_a_living_connection_changes_nothing);
    RUN(uninvited_syns_get_what_is_asked_for);
    RUN(a_firewall_answers_too);
    RUN(times_are_scaled);
    return report();
}
