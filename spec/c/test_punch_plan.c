/* Which tactic, and that its shots meet: whatever foreign flows have moved, and whatever was lost.
 */
#include "core/punch_plan.h"
#include "spec/c/check.h"

enum { NATS = ADDR_NAT_BLOCKED, DELTAS = ADDR_DELTA_RANDOM, FIRST = 2000, LOCAL = 500 };

static struct plan_asked asked, other;
static struct plan plan, answer; /* they are large */

static struct plan_side side(const char *nat, const char *delta) {
    return (struct plan_side){.kind = {.nat = (enum addr_nat)addr_nat_number(nat),
                                       .delta = (enum addr_delta)addr_delta_number(delta),
                                       .value = 1}};
}

static void give_ports(struct plan_side *to, unsigned count, int base) {
    to->port_count = to->local_count = count;
    for (unsigned i = 0; i < count; i++) {
        to->ports[i] = (uint16_t)(base + (int)i);
        to->locals[i] = (uint16_t)(LOCAL + i);
    }
}

/* Both ends, with the ports that they need. */
static void begin(struct plan_side own, struct plan_side peer, unsigned attempt) {
    struct plan_needs mine, theirs;
    enum plan_reason reason;
    plan_tactic(&own, &peer, &mine, &theirs, &reason);
    give_ports(&own, mine.hold ? 1 : mine.ports, FIRST);
    give_ports(&peer, theirs.hold ? 1 : theirs.ports, 2 * FIRST);
    asked = (struct plan_asked){.own = own,
                                .peer = peer,
                                .connects = true,
                                .attempt = attempt,
                                .sockets = PLAN_SOCKETS,
                                .sprays = PLAN_SPRAYS,
                                .seed = 7};
    other = asked;
    other.own = peer;
    other.peer = own;
    other.connects = false;
    other.seed = 8;
}

static void make(void) {
    CHECK_EQ(plan_make(&asked, &plan), PLAN_FINE);
    CHECK_EQ(plan_make(&other, &answer), PLAN_FINE);
    CHECK_EQ(plan.tactic, answer.tactic);
}

static bool is_symmetric(const struct plan_side *one) {
    return one->kind.nat == ADDR_NAT_SYMMETRIC && one->kind.delta != ADDR_DELTA_EQUAL;
}

/* The external port of a shot: a symmetric router's depends on how many were mapped before. */
static int external_of(const struct plan_side *own, const struct plan_shot *shot, int moved) {
    return is_symmetric(own) ? own->ports[0] + (shot->local - LOCAL) + moved : own->ports[0];
}

/* How many pairs of shots are for each other. */
static int meetings(int own_moved, int peer_moved) {
    int count = 0;
    for (unsigned i = 0; i < plan.shot_count; i++)
        for (unsigned j = 0; j < answer.shot_count; j++)
            count +=
                plan.shots[i].remote == external_of(&other.own, &answer.shots[j], peer_moved) &&
                answer.shots[j].remote == external_of(&asked.own, &plan.shots[i], own_moved);
    return count;
}

/* Tactics -------------------------------------------------------------------------------------- */

static void both_ends_come_to_the_same(void) {
    struct plan_side a = {0}, b = {0};
    struct plan_needs a_needs, b_needs, a_other, b_other;
    enum plan_reason here, there;
    for (int i = 0; i < NATS * DELTAS * NATS * DELTAS; i++) {
        a.kind.nat = (enum addr_nat)(1 + i % NATS);
        a.kind.delta = (enum addr_delta)(1 + i / NATS % DELTAS);
        b.kind.nat = (enum addr_nat)(1 + i / NATS / DELTAS % NATS);
        b.kind.delta = (enum addr_delta)(1 + i / NATS / DELTAS / NATS);
        enum plan_tactic tactic = plan_tactic(&a, &b, &a_needs, &b_needs, &here);
        CHECK_EQ(plan_tactic(&b, &a, &b_other, &a_other, &there), tactic);
        CHECK(a_needs.ports == a_other.ports && b_needs.ports == b_other.ports);
        CHECK(a_needs.hold == a_other.hold && b_needs.samples == b_other.samples);
        CHECK_EQ(tactic == PLAN_NONE, here != PLAN_FINE);
        CHECK_EQ(here == PLAN_FINE, there == PLAN_FINE);
    }
}

static void is(const char *nat, const char *delta, const char *other_nat, const char *other_delta,
               enum plan_tactic tactic, enum plan_reason reason) {
    struct plan_side a = side(nat, delta), b = side(other_nat, other_delta);
    struct plan_needs needs;
    enum plan_reason why;
    CHECK_EQ(plan_tactic(&a, &b, &needs, &needs, &why), tactic);
    CHECK_EQ(why, reason);
}

static void each_pair_has_its_tactic(void) {
    is("open", "na", "udp-firewall", "na", PLAN_MEET, PLAN_FINE);
    is("port-restricted", "random", "symmetric", "equal", PLAN_MEET, PLAN_FINE);
    is("restricted", "random", "symmetric", "independent", PLAN_WINDOW, PLAN_FINE);
    is("symmetric", "preserving", "open", "na", PLAN_WINDOW, PLAN_FINE);
    is("symmetric", "preserving", "symmetric", "dependent", PLAN_CROSS, PLAN_FINE);
    is("symmetric", "random", "restricted", "random", PLAN_CALL, PLAN_FINE);
    is("full-cone", "equal", "symmetric", "random", PLAN_CALL, PLAN_FINE);
    is("symmetric", "random", "udp-firewall", "na", PLAN_BIRTHDAY, PLAN_FINE);
    is("symmetric", "na", "symmetric", "equal", PLAN_BIRTHDAY, PLAN_FINE);
    is("symmetric", "random", "symmetric", "random", PLAN_NONE, PLAN_BOTH_RANDOM);
    is("symmetric", "random", "symmetric", "independent", PLAN_NONE, PLAN_OWN_RANDOM);
    is("symmetric", "dependent", "symmetric", "random", PLAN_NONE, PLAN_PEER_RANDOM);
    is("blocked", "equal", "open", "na", PLAN_NONE, PLAN_OWN_BLOCKED);
    is("open", "na", "blocked", "random", PLAN_NONE, PLAN_PEER_BLOCKED);
}

/* Shots ---------------------------------------------------------------------------------------- */

static void kept_ports_meet(void) {
    begin(side("port-restricted", "random"), side("restricted", "equal"), 1);
    make();
    CHECK_EQ(meetings(0, 0), 1);
    CHECK_EQ(plan.shot_count, 1);
    CHECK_EQ(plan.shots[0].ttl, 0);
    CHECK_EQ(plan.listen_count, 1);
    CHECK_EQ(plan.listen[0], LOCAL);
    CHECK(plan.revive_gap_ms != answer.revive_gap_ms);
}

static void runs_meet_whatever_has_moved_them(void) {
    for (int own = -2; own <= 5; own++)
        for (int peer = -2; peer <= 5; peer++)
            for (unsigned attempt = 1; attempt <= 3; attempt++) {
                begin(side("symmetric", "independent"), side("symmetric", "independent"), attempt);
                make();
                CHECK_EQ(meetings(own, peer), 1);
            }
    CHECK_EQ(plan.shot_count, 8);
}

static void a_window_is_met_twice_then_once(void) {
    for (int moved = -3; moved <= 15; moved++) {
        begin(side("port-restricted", "random"), side("symmetric", "independent"), 1);
        make();
        int met = meetings(0, moved);
        CHECK(moved >= 0 && moved <= 8 ? met >= 2 : met >= 1);
        CHECK(plan.shot_count <= 8 && answer.shot_count <= 8);
        begin(side("port-restricted", "random"), side("symmetric", "independent"), 2);
        make();
        CHECK(meetings(0, moved) >= met);
        CHECK(plan.shot_count <= 8);
    }
}

static void chains_lie_side_by_side(void) {
    begin(side("symmetric", "dependent"), side("symmetric", "preserving"), 1);
    make();
    CHECK_EQ(meetings(0, 0), 2);
    begin(side("symmetric", "dependent"), side("full-cone", "random"), 1);
    make();
    CHECK_EQ(meetings(0, 0), 2);
}

static void a_run_meets_a_chain(void) {
    for (int moved = -2; moved <= 5; moved++) {
        begin(side("symmetric", "independent"), side("symmetric", "dependent"), 1);
        make();
        CHECK_EQ(meetings(moved, 0), 1);
    }
}

/* The chain broke: its second SYN is where nobody expected it, and waits for the second run. */
static void a_broken_chain_is_met_by_the_second_run(void) {
    for (int moved = -2; moved <= 5; moved++) {
        begin(side("symmetric", "independent"), side("symmetric", "dependent"), 1);
        make();
        for (unsigned i = 0; i < 2; i++)
            other.own.ports[i] = asked.peer.ports[i] = (uint16_t)(9000 + i);
        CHECK_EQ(meetings(moved, 0), 0);
        asked.peer.exact = true;
        CHECK_EQ(plan_make(&asked, &plan), PLAN_FINE);
        CHECK_EQ(meetings(moved, 0), 1);
        for (unsigned i = 0; i < plan.shot_count; i++)
            CHECK(plan.shots[i].local >= LOCAL + 8); /* the first run's ports are gone */
    }
    /* and a window aims at it */
    begin(side("restricted", "equal"), side("symmetric", "dependent"), 1);
    make();
    for (unsigned i = 0; i < 2; i++)
        other.own.ports[i] = asked.peer.ports[i] = (uint16_t)(9000 + i);
    CHECK_EQ(meetings(0, 0), 0);
    asked.peer.exact = true;
    CHECK_EQ(plan_make(&asked, &plan), PLAN_FINE);
    CHECK_EQ(meetings(0, 0), 2);
}

static void later_attempts_open_with_less_reach(void) {
    begin(side("port-restricted", "random"), side("restricted", "equal"), 2);
    make();
    CHECK_EQ(plan.shots[0].ttl, 0); /* first the side that responds */
    CHECK_EQ(answer.shots[0].ttl, 2);
    CHECK_EQ(answer.shots[0].at_us, 0);
    CHECK(plan.shots[0].at_us >= 50000);
    asked.attempt = other.attempt = 3;
    asked.ttl = 5;
    other.rtt_ms = 40;
    make();
    CHECK_EQ(plan.shots[0].ttl, 5);
    CHECK_EQ(answer.shots[0].ttl, 0);
    CHECK_EQ(answer.shots[0].at_us, 35000);
}

static void a_call_is_heard(void) {
    begin(side("symmetric", "random"), side("restricted", "equal"), 1);
    make();
    CHECK_EQ(plan.shots[0].local, 0);
    CHECK_EQ(plan.shots[0].remote, 2 * FIRST);
    CHECK_EQ(answer.listen[0], LOCAL);
    CHECK(answer.shot_count > 1);
    CHECK_EQ(answer.shots[0].local, LOCAL);
    begin(side("symmetric", "random"), side("full-cone", "equal"), 1);
    make();
    CHECK_EQ(answer.shot_count, 0); /* nothing needs to be opened */
    CHECK_EQ(answer.listen_count, 1);
}

static void birthday_of(int first, int last) {
    begin(side("symmetric", "random"), side("udp-firewall", "na"), 1);
    asked.own.kind.first = other.peer.kind.first = (uint16_t)first;
    asked.own.kind.last = other.peer.kind.last = (uint16_t)last;
    make();
}

static void many_try_many(void) {
    static bool tried[65536];
    birthday_of(20000, 60000);
    CHECK_EQ(plan.shot_count, 256);
    for (unsigned i = 0; i < plan.shot_count; i++)
        CHECK(plan.shots[i].local == 0 && plan.shots[i].listens &&
              plan.shots[i].remote == 2 * FIRST);
    CHECK(plan.revive_times > 0 && 256 * (1 + plan.revive_times) <= 2048);
    CHECK_EQ(answer.shot_count, 1024);
    CHECK_EQ(answer.revive_times, 0);
    CHECK(answer.shots[0].at_us > plan.shots[128].at_us); /* X is there first */
    for (unsigned i = 0; i < answer.shot_count; i++) {
        uint16_t port = answer.shots[i].remote;
        CHECK(port >= 20000 && port <= 60000 && !tried[port]);
        tried[port] = true;
        CHECK_EQ(answer.shots[i].local, LOCAL);
        CHECK(i == 0 || answer.shots[i].at_us >= answer.shots[i - 1].at_us);
    }
    other.seed++; /* another seed, other ports */
    CHECK_EQ(plan_make(&other, &answer), PLAN_FINE);
    unsigned again = 0;
    for (unsigned i = 0; i < answer.shot_count; i++)
        again += tried[answer.shots[i].remote];
    CHECK(again < 200);
}

static void a_small_range_needs_less(void) {
    birthday_of(50000, 52047);
    CHECK(answer.shot_count < 100);
    birthday_of(50000, 50000); /* what a liar says costs nothing */
    CHECK_EQ(answer.shot_count, 1);
    birthday_of(50000, 50009);
    CHECK(answer.shot_count <= 10);
    other.attempt = 2;
    CHECK_EQ(plan_make(&other, &answer), PLAN_FINE);
    CHECK_EQ(answer.shot_count, 10);
}

static void budgets(void) {
    birthday_of(0, 0);
    asked.sockets = other.sprays = 16;
    make();
    CHECK_EQ(plan.shot_count, 16);
    CHECK_EQ(answer.shot_count, 16);
    asked.sockets = PLAN_SHOTS_MAX;
    CHECK_EQ(plan_make(&asked, &plan), PLAN_FINE);
    CHECK_EQ(plan.shot_count, PLAN_SHOTS_MAX);
    CHECK_EQ(plan.revive_times, 0);
    asked.sockets = 0;
    CHECK_EQ(plan_make(&asked, &plan), PLAN_NO_BUDGET);
}

static void without_ports_there_is_no_plan(void) {
    begin(side("port-restricted", "random"), side("symmetric", "independent"), 1);
    asked.peer.port_count = 0;
    CHECK_EQ(plan_make(&asked, &plan), PLAN_PEER_PORTS);
    asked.own.local_count = 0;
    CHECK_EQ(plan_make(&asked, &plan), PLAN_OWN_PORTS);
    asked.own = side("blocked", "na");
    CHECK_EQ(plan_make(&asked, &plan), PLAN_OWN_BLOCKED);
}

/* Fewer or more ports than were asked for: never beyond them, never more SYNs than are allowed. */
static void any_number_of_ports_will_do(void) {
    static const char *const deltas[] = {"equal", "preserving", "independent", "dependent"};
    for (unsigned i = 0; i < 4 * 4 * PLAN_PORTS_MAX * PLAN_PORTS_MAX; i++) {
        begin(side("symmetric", deltas[i % 4]), side("symmetric", deltas[i / 4 % 4]), 1 + i % 5);
        unsigned mine = 1 + i / 16 % PLAN_PORTS_MAX, theirs = 1 + i / 16 / PLAN_PORTS_MAX;
        give_ports(&asked.own, mine, FIRST);
        give_ports(&asked.peer, theirs, 2 * FIRST);
        asked.peer.exact = i % 3 == 0;
        CHECK_EQ(plan_make(&asked, &plan), PLAN_FINE);
        CHECK(plan.shot_count <= 8);
        for (unsigned j = 0; j < plan.shot_count; j++) {
            CHECK(plan.shots[j].local >= LOCAL && plan.shots[j].local < LOCAL + mine);
            CHECK(plan.shots[j].remote >= 2 * FIRST && plan.shots[j].remote < 2 * FIRST + theirs);
        }
    }
}

int main(void) {
    RUN(both_ends_come_to_the_same);
    RUN(each_pair_has_its_tactic);
    RUN(kept_ports_meet);
    RUN(runs_meet_whatever_has_moved_them);
    RUN(a_window_is_met_twice_then_once);
    RUN(chains_lie_side_by_side);
    RUN(a_run_meets_a_chain);
    RUN(a_broken_chain_is_met_by_the_second_run);
    RUN(later_attempts_open_with_less_reach);
    RUN(a_call_is_heard);
    RUN(many_try_many);
    RUN(a_small_range_needs_less);
    RUN(budgets);
    RUN(without_ports_there_is_no_plan);
    RUN(any_number_of_ports_will_do);
    return check_report();
}
