/* Which external port comes next: against the router model itself, of each delta, value and range;
 * with samples that were lost, overtaken, or moved on by others. */
#include "core/nat_model.h"
#include "core/predict.h"
#include "spec/c/check.h"

static struct predict_pair samples[PREDICT_SAMPLES_MAX], got[PREDICT_COUNT_MAX];
static struct predict_asked asked;
static enum predict_fault fault;
static size_t made;

static void begin(const char *nat, const char *delta, int value, int first, int last) {
    asked = (struct predict_asked){.kind = {.nat = (enum addr_nat)addr_nat_number(nat),
                                            .delta = (enum addr_delta)addr_delta_number(delta),
                                            .value = value,
                                            .first = (uint16_t)first,
                                            .last = (uint16_t)last},
                                   .samples = samples};
    CHECK(predict_kind_check(&asked.kind));
}

static void seen(int local, int external) {
    samples[asked.sample_count++] = (struct predict_pair){(uint16_t)local, (uint16_t)external};
}

static void next(size_t count) {
    made = predict_next(&asked, got, count, &fault);
}

static void is(size_t place, int local, int external) {
    CHECK(place < made);
    CHECK_EQ(got[place].local, local);
    CHECK_EQ(got[place].external, external);
}

/* The router itself ---------------------------------------------------------------------------- */

static struct nat_model *model;

static uint16_t map(uint16_t local, unsigned server) {
    struct nat_packet packet = {.protocol = NAT_TCP,
                                .source = {.family = 4, .bytes = {192, 168, 1, 10}},
                                .destination = {.family = 4, .bytes = {30, 1, 0, (uint8_t)server}},
                                .source_port = local,
                                .destination_port = 3478,
                                .tcp_flags = NAT_SYN};
    return nat_model_out(model, 1000, &packet, NULL) == NAT_PASS ? packet.source_port : 0;
}

/* Two samples, and whether the next mappings are the ones that were predicted. */
static void agrees(const char *nat, const char *delta, int value, int first, int last,
                   uint64_t seed) {
    struct nat_config config;
    struct nat_behaviour *rule = &config.protocols[NAT_TCP];
    CHECK_EQ(nat_config_named(nat, delta, value, &config), 0);
    bool translates = rule->translates;
    config.external_count = translates;
    config.external[0] = (struct ip){.family = 4, .bytes = {30, 2, 1, 2}};
    if (first != 0)
        rule->first = (uint16_t)first, rule->last = (uint16_t)last;
    CHECK_EQ(nat_model_new(&config, seed, &model), 0);
    begin(nat, translates ? delta : "na", value, first, last);
    uint16_t local = (uint16_t)(1024 + seed * 7919 % 60000);
    for (unsigned i = 0; i < 2; i++)
        seen(local + (int)i, map((uint16_t)(local + i), i + 1));
    next(10);
    CHECK_EQ(made, 10);
    for (size_t i = 0; i < made; i++)
        CHECK_EQ(map(got[i].local, 9), got[i].external);
    nat_model_free(model);
}

static void the_next_ones_are_those_of_the_router(void) {
    static const int values[] = {1, 7, -1, -3, 128, 5000};
    static const char *const nats[] = {"restricted", "symmetric"};
    for (uint64_t seed = 1; seed <= 40; seed++) {
        agrees("open", NULL, 0, 0, 0, seed);
        for (size_t n = 0; n < 2; n++) {
            agrees(nats[n], "equal", 0, 0, 0, seed);
            agrees(nats[n], "equal", 0, 30000, 40000, seed);
            for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
                agrees(nats[n], "independent", values[i], 0, 0, seed);
                agrees(nats[n], "dependent", values[i], 0, 0, seed);
            }
            /* The ends are passed often. */
            agrees(nats[n], "independent", 7, 50000, 50040, seed);
            agrees(nats[n], "independent", -7, 50000, 50040, seed);
            agrees(nats[n], "dependent", 7, 50000, 50040, seed);
            agrees("restricted", "preserving", 0, 0, 0, seed);
            agrees("restricted", "preserving", 0, 20000, 29999, seed);
            agrees("symmetric", "preserving", 0, 0, 0, seed);
        }
    }
}

/* Each rule by itself -------------------------------------------------------------------------- */

static void each_mapping_has_a_port_of_its_own(void) {
    begin("symmetric", "independent", 10, 0, 0);
    seen(44333, 30000);
    next(3);
    is(0, 44334, 30010);
    is(1, 44335, 30020);
    is(2, 44336, 30030);
}

static void ends_of_ranges(void) {
    begin("symmetric", "independent", 10, 2000, 65535);
    seen(44333, 65530);
    next(1);
    is(0, 44334, 2004);
    begin("symmetric", "independent", -10, 2000, 65535);
    seen(44333, 2003);
    next(1);
    is(0, 44334, 65529);
    begin("symmetric", "independent", 1, 0, 0); /* not known: 1024 to 65535 */
    seen(65535, 65535);
    next(2);
    is(0, 1024, 1024);
    is(1, 1025, 1025);
}

static void a_range_that_cannot_be_is_wider(void) {
    begin("symmetric", "independent", 1, 5000, 6000);
    seen(2000, 7000);
    next(1);
    is(0, 2001, 5000);
    begin("symmetric", "independent", 1, 5000, 6000);
    seen(2000, 800);
    next(1);
    is(0, 2001, 801);
}

static void others_have_moved_it_on(void) {
    begin("symmetric", "independent", 7, 0, 0);
    seen(2000, 3000);
    seen(2001, 3021); /* two flows between the two */
    next(1);
    is(0, 2002, 3028);
}

static void one_has_overtaken_the_other(void) {
    begin("symmetric", "independent", 7, 0, 0);
    seen(2000, 3007);
    seen(2001, 3000);
    next(1);
    is(0, 2002, 3014);
    begin("symmetric", "independent", -7, 1024, 65535);
    seen(2000, 1026);
    seen(2001, 65531); /* over the end: this is the later one */
    next(1);
    is(0, 2002, 65524);
}

static void a_lost_sample_has_taken_a_port(void) {
    begin("symmetric", "independent", 7, 0, 0);
    seen(2000, 3000);
    seen(2001, 0);
    next(1);
    is(0, 2002, 3014);
    begin("symmetric", "dependent", 7, 0, 0);
    seen(2000, 3000);
    seen(2001, 0);
    next(1);
    is(0, 2002, 3014);
    begin("symmetric", "independent", 7, 0, 0);
    seen(2000, 0);
    seen(2001, 3000);
    next(1);
    is(0, 2002, 3007);
}

static void a_chain_goes_on_with_the_next_local_port_alone(void) {
    static const uint16_t taken[] = {2003};
    begin("symmetric", "dependent", 2, 0, 0);
    seen(2000, 3000);
    next(4);
    CHECK_EQ(made, 4);
    is(3, 2004, 3008);
    asked.taken = taken;
    asked.taken_count = 1;
    next(4);
    CHECK_EQ(made, 2);
    is(1, 2002, 3004);
    begin("symmetric", "dependent", 2, 0, 0);
    seen(65535, 3000); /* there is none behind it */
    next(1);
    CHECK_EQ(made, 0);
    CHECK_EQ(fault, PREDICT_CHAIN);
}

static void local_ports_that_are_taken_are_passed_over(void) {
    static const uint16_t taken[] = {2001, 2003, 1024};
    begin("symmetric", "independent", 1, 0, 0);
    asked.taken = taken;
    asked.taken_count = 3;
    seen(2000, 3000);
    next(2);
    is(0, 2002, 3001);
    is(1, 2004, 3002);
    begin("restricted", "preserving", 0, 0, 0);
    asked.taken = taken;
    asked.taken_count = 3;
    seen(65535, 3000);
    seen(2000, 3977);
    next(2);
    is(0, 2002, 3979);
}

static void distances_have_a_sign(void) {
    static const uint16_t taken[] = {44333};
    struct predict_pair pair;
    begin("port-restricted", "preserving", 0, 0, 0);
    seen(44333, 30000);
    CHECK_EQ(predict_wanted(&asked, 13073, &pair), PREDICT_FINE);
    CHECK_EQ(pair.local, 27406);
    CHECK_EQ(predict_wanted(&asked, 40000, &pair), PREDICT_FINE);
    CHECK_EQ(pair.local, 54333);
    CHECK_EQ(predict_wanted(&asked, 60000, &pair), PREDICT_FINE); /* around */
    CHECK_EQ(pair.local, 44333 + 30000 - 64512);
    CHECK_EQ(predict_wanted(&asked, 1000, &pair), PREDICT_RANGE);
    CHECK_EQ(predict_wanted(&asked, 30000, &pair), PREDICT_FINE);
    CHECK_EQ(pair.local, 44333);
    asked.taken = taken;
    asked.taken_count = 1;
    CHECK_EQ(predict_wanted(&asked, 30000, &pair), PREDICT_CHAIN);
    begin("open", "na", 0, 0, 0);
    CHECK_EQ(predict_wanted(&asked, 80, &pair), PREDICT_FINE);
    CHECK_EQ(pair.local, 80);
    begin("symmetric", "independent", 1, 0, 0);
    CHECK_EQ(predict_wanted(&asked, 5000, &pair), PREDICT_RANDOM);
    begin("blocked", "equal", 0, 0, 0);
    CHECK_EQ(predict_wanted(&asked, 5000, &pair), PREDICT_BLOCKED);
}

static void what_cannot_be_predicted(void) {
    begin("symmetric", "random", 0, 0, 0);
    seen(2000, 3000);
    next(1);
    CHECK_EQ(fault, PREDICT_RANDOM);
    begin("blocked", "equal", 0, 0, 0);
    seen(2000, 2000);
    next(1);
    CHECK_EQ(fault, PREDICT_BLOCKED);
    begin("symmetric", "independent", 1, 0, 0);
    next(1);
    CHECK_EQ(fault, PREDICT_NO_SAMPLE);
    seen(2000, 0);
    next(1);
    CHECK_EQ(made, 0);
    CHECK_EQ(fault, PREDICT_NO_SAMPLE);
    begin("restricted", "random", 0, 0, 0); /* but what it has mapped it keeps */
    seen(2000, 0);
    seen(2001, 4000);
    next(4);
    CHECK_EQ(made, 1);
    is(0, 2001, 4000);
}

static void a_tiny_range_ends(void) {
    begin("symmetric", "independent", 1, 7000, 7000);
    seen(2000, 7000);
    next(3);
    CHECK_EQ(made, 3); /* nonsense, but it comes back */
}

/* Between samples ------------------------------------------------------------------------------ */

static void what_lies_between_is_certain(void) {
    struct predict_pair list[] = {{2000, 3000}, {2001, 0}, {2002, 0}, {2003, 3021}};
    begin("symmetric", "dependent", 7, 0, 0);
    CHECK_EQ(predict_between(&asked.kind, list, 4), 0);
    CHECK_EQ(list[1].external, 3007);
    CHECK_EQ(list[2].external, 3014);
    struct predict_pair shifted[] = {{2000, 3000}, {2001, 0}, {2002, 0}, {2003, 3028}};
    begin("symmetric", "independent", 7, 0, 0);
    CHECK_EQ(predict_between(&asked.kind, shifted, 4), 2); /* somebody came in between */
    struct predict_pair apart[] = {{2000, 3000}, {2005, 0}, {2002, 3014}};
    begin("symmetric", "dependent", 7, 0, 0);
    CHECK_EQ(predict_between(&asked.kind, apart, 3), 1);
}

static void what_lies_at_the_ends_is_counted(void) {
    struct predict_pair before[] = {{2000, 0}, {2001, 0}, {2002, 1030}};
    begin("symmetric", "dependent", 7, 1024, 65535);
    CHECK_EQ(predict_between(&asked.kind, before, 3), 0);
    CHECK_EQ(before[1].external, 65535);
    CHECK_EQ(before[0].external, 65528);
    struct predict_pair after[] = {{2000, 3000}, {9000, 0}};
    begin("symmetric", "independent", 7, 0, 0);
    CHECK_EQ(predict_between(&asked.kind, after, 2), 0);
    CHECK_EQ(after[1].external, 3007);
    struct predict_pair none[] = {{2000, 0}, {9000, 0}};
    CHECK_EQ(predict_between(&asked.kind, none, 2), 2);
    CHECK_EQ(predict_between(&asked.kind, none, 0), 0);
    struct predict_pair kept[] = {{2000, 0}, {9000, 4000}};
    begin("restricted", "preserving", 0, 1024, 9000);
    CHECK_EQ(predict_between(&asked.kind, kept, 2), 0);
    CHECK_EQ(kept[0].external, 4977);
}

int main(void) {
    RUN(the_next_ones_are_those_of_the_router);
    RUN(each_mapping_has_a_port_of_its_own);
    RUN(ends_of_ranges);
    RUN(a_range_that_cannot_be_is_wider);
    RUN(others_have_moved_it_on);
    RUN(one_has_overtaken_the_other);
    RUN(a_lost_sample_has_taken_a_port);
    RUN(a_chain_goes_on_with_the_next_local_port_alone);
    RUN(local_ports_that_are_taken_are_passed_over);
    RUN(distances_have_a_sign);
    RUN(what_cannot_be_predicted);
    RUN(a_tiny_range_ends);
    RUN(what_lies_between_is_certain);
    RUN(what_lies_at_the_ends_is_counted);
    return check_report();
}
