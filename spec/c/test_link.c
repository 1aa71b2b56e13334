/* link: time is a number here, so that all of it is exact. */
#include "core/frame.h"
#include "core/link.h"
#include "spec/c/check.h"

#include <stdlib.h>

#define MS UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)

static struct link *make(const struct link_config *config) {
    struct link *link;
    CHECK_EQ(link_new(7, &link), 0);
    link_configure(link, config);
    return link;
}

static enum link_fate push(struct link *link, uint64_t now_ns, uint32_t number, size_t length) {
    uint8_t bytes[FRAME_SIZE + 1] = {0};
    memcpy(bytes, &number, sizeof number);
    return link_push(link, now_ns, bytes, length);
}

static struct link_packet popped;

/* The number of the packet whose time has come, or -1. */
static long long pop(struct link *link, uint64_t now_ns) {
    uint32_t number;
    if (!link_pop(link, now_ns, &popped))
        return -1;
    memcpy(&number, popped.bytes, sizeof number);
    return number;
}

static void a_link_without_wishes_is_straight(void) {
    struct link *link = make(&(struct link_config){0});
    CHECK(link_next_due(link) == UINT64_MAX);
    for (uint32_t i = 0; i < 1000; i++) {
        CHECK_EQ(push(link, 5 * MS, i, 1500), LINK_QUEUED);
        CHECK(link_next_due(link) == 5 * MS);
        CHECK_EQ(pop(link, 5 * MS), i);
    }
    CHECK_EQ(pop(link, 6 * MS), -1);
    CHECK_EQ(push(link, 5 * MS, 1, FRAME_SIZE), LINK_QUEUED);
    CHECK_EQ(push(link, 5 * MS, 1, FRAME_SIZE + 1), LINK_LOST);
    link_free(link);
}

static void the_delay_is_exact_and_the_order_stays(void) {
    struct link *link = make(&(struct link_config){.delay_ns = 10 * MS});
    for (uint32_t i = 0; i < 10000; i++)
        CHECK_EQ(push(link, i * 1000, i, 100), LINK_QUEUED);
    for (uint32_t i = 0; i < 10000; i++) {
        CHECK(link_next_due(link) == i * 1000 + 10 * MS);
        CHECK_EQ(pop(link, i * 1000 + 10 * MS - 1), -1);
        CHECK_EQ(pop(link, i * 1000 + 10 * MS), i);
    }
    CHECK_EQ(link_count(link), 0);
    link_free(link);
}

static void less_delay_overtakes_nothing(void) {
    struct link *link = make(&(struct link_config){.delay_ns = 10 * MS});
    push(link, 0, 1, 100);
    push(link, 5 * MS, 2, 100);
    link_configure(link, &(struct link_config){.delay_ns = 4 * MS});
    push(link, 5 * MS, 3, 100);
    CHECK_EQ(pop(link, 4 * MS), 1);
    CHECK_EQ(pop(link, 9 * MS - 1), -1);
    CHECK_EQ(pop(link, 9 * MS), 2);
    CHECK_EQ(pop(link, 9 * MS), 3);
    link_configure(link, &(struct link_config){.delay_ns = 10 * MS});
    push(link, 20 * MS, 4, 100);
    CHECK(link_next_due(link) == 30 * MS);
    link_free(link);
}

static void another_rate_empties_the_queue(void) {
    struct link *link = make(&(struct link_config){.rate = 8000}); /* 100 bytes take 100 ms */
    for (uint32_t i = 0; i < 10; i++)
        push(link, 0, i, 100);
    link_configure(link, &(struct link_config){.rate = 8000000});
    CHECK_EQ(push(link, 0, 10, 100), LINK_QUEUED);
    for (int i = 0; i <= 10; i++)
        CHECK_EQ(pop(link, 100 * MS), i);
    link_free(link);
}

static void jitter_varies_the_delay_but_not_the_order(void) {
    struct link *link = make(&(struct link_config){.delay_ns = 10 * MS, .jitter_ns = 4 * MS});
    uint64_t least = UINT64_MAX, most = 0, sum = 0;
    for (uint32_t i = 0; i < 10000; i++) {
        uint64_t now_ns = i * 20 * MS;
        push(link, now_ns, i, 100);
        uint64_t delay = link_next_due(link) - now_ns;
        least = delay < least ? delay : least;
        most = delay > most ? delay : most;
        sum += delay;
        CHECK_EQ(pop(link, now_ns + delay), i);
    }
    CHECK(least >= 6 * MS && least < 6 * MS + MS / 10);
    CHECK(most <= 14 * MS && most > 14 * MS - MS / 10);
    CHECK(sum / 10000 > 10 * MS - MS / 10 && sum / 10000 < 10 * MS + MS / 10);
    for (uint32_t i = 0; i < 1000; i++)
        push(link, 300 * SECOND + i, i, 100);
    for (uint32_t i = 0; i < 1000; i++)
        CHECK_EQ(pop(link, 301 * SECOND), i);
    link_free(link);
}

static void shares_are_what_was_asked_for(void) {
    static const double shares[] = {0, 0.01, 0.05, 0.2, 0.5, 0.99, 1};
    for (size_t s = 0; s < sizeof shares / sizeof shares[0]; s++) {
        unsigned fates[3][LINK_FATES] = {{0}};
        struct link *links[] = {
            make(&(struct link_config){.loss = shares[s]}),
            make(&(struct link_config){.duplicate = shares[s]}),
            make(&(struct link_config){.reorder = shares[s]}),
        };
        for (size_t l = 0; l < 3; l++) {
            for (uint32_t i = 0; i < 10000; i++) {
                fates[l][push(links[l], i, i, 100)]++;
                while (pop(links[l], UINT64_MAX) >= 0)
                    ;
            }
            link_free(links[l]);
        }
        const unsigned seen[] = {fates[0][LINK_LOST], fates[1][LINK_DUPLICATED],
                                 fates[2][LINK_REORDERED]};
        for (size_t l = 0; l < 3; l++)
            CHECK(abs((int)seen[l] - (int)(shares[s] * 10000 + 0.5)) <= 50); /* half a percent */
    }
}

static void duplicates_come_twice(void) {
    struct link *link = make(&(struct link_config){.duplicate = 1, .delay_ns = MS});
    for (uint32_t i = 0; i < 10; i++)
        CHECK_EQ(push(link, 0, i, 100), LINK_DUPLICATED);
    CHECK_EQ(link_count(link), 20);
    for (uint32_t i = 0; i < 20; i++)
        CHECK_EQ(pop(link, MS), i / 2);
    link_free(link);
}

static void what_is_held_back_is_overtaken(void) {
    struct link *link = make(&(struct link_config){.reorder = 1, .delay_ns = MS});
    CHECK_EQ(push(link, 0, 1, 100), LINK_REORDERED);
    link_configure(link, &(struct link_config){.delay_ns = MS});
    CHECK_EQ(push(link, MS, 2, 100), LINK_QUEUED);
    CHECK_EQ(push(link, 9 * MS, 3, 100), LINK_QUEUED);
    CHECK_EQ(pop(link, 2 * MS), 2);
    CHECK_EQ(popped.fate, LINK_QUEUED);
    CHECK(link_next_due(link) == MS + LINK_HELD_BACK_NS);
    CHECK_EQ(pop(link, 20 * MS), 1);
    CHECK_EQ(popped.fate, LINK_REORDERED);
    CHECK_EQ(pop(link, 20 * MS), 3);
    link_free(link);
}

static void the_rate_holds_and_the_queue_is_bounded(void) {
    static const uint64_t rates[] = {64000, 1000000, 10000000, 100000000, 500000000};
    for (size_t r = 0; r < sizeof rates / sizeof rates[0]; r++) {
        struct link *link = make(&(struct link_config){.rate = rates[r]});
        uint64_t now_ns = 0, bytes = 0, full = 0;
        for (; now_ns < 20 * SECOND && bytes < 20000000; now_ns += MS / 10) {
            for (uint32_t i = 0; i < 10; i++)
                full += push(link, now_ns, i, 1250) == LINK_FULL;
            while (pop(link, now_ns) >= 0)
                bytes += 1250;
            uint64_t queue_ns = link_count(link) * UINT64_C(1250) * 8 * SECOND / rates[r];
            CHECK(queue_ns <= 105 * MS || link_count(link) <= 22);
        }
        double share = (double)bytes * 8 / ((double)now_ns / 1e9) / (double)rates[r];
        CHECK(share > 0.99 && share < 1.01);
        CHECK(full > 0);
        link_free(link);
    }
}

static void a_pulled_cable_loses_all(void) {
    struct link *link = make(&(struct link_config){.delay_ns = MS});
    push(link, 0, 1, 100);
    link_configure(link, &(struct link_config){.down = true});
    CHECK_EQ(link_count(link), 0);
    CHECK_EQ(push(link, 0, 2, 100), LINK_DOWN);
    link_configure(link, &(struct link_config){.delay_ns = MS});
    CHECK_EQ(push(link, 0, 3, 100), LINK_QUEUED);
    CHECK_EQ(pop(link, SECOND), 3);
    CHECK_EQ(pop(link, SECOND), -1);
    link_free(link);
}

static void its_memory_is_bounded(void) {
    struct link *link = make(&(struct link_config){.delay_ns = SECOND});
    unsigned full = 0;
    for (uint32_t i = 0; i < LINK_PACKETS + 100; i++)
        full += push(link, i, i, 1500) == LINK_FULL;
    CHECK_EQ(full, 100);
    for (uint32_t i = 0; i < LINK_PACKETS; i++)
        CHECK_EQ(pop(link, 2 * SECOND), i);
    CHECK_EQ(push(link, 3 * SECOND, 1, 1500), LINK_QUEUED);
    link_flush(link);
    CHECK_EQ(link_count(link), 0);
    CHECK(link_next_due(link) == UINT64_MAX);
    link_free(link);
}

static void a_seed_repeats_itself(void) {
    struct link_config config = {.loss = 0.3, .duplicate = 0.2, .reorder = 0.1};
    struct link *a = make(&config), *b = make(&config);
    for (uint32_t i = 0; i < 1000; i++)
        CHECK_EQ(push(a, i, i, 100), push(b, i, i, 100));
    link_free(a);
    link_free(b);
}

int main(void) {
    RUN(a_link_without_wishes_is_straight);
    RUN(the_delay_is_exact_and_the_order_stays);
    RUN(less_delay_overtakes_nothing);
    RUN(another_rate_empties_the_queue);
    RUN(jitter_varies_the_delay_but_not_the_order);
    RUN(shares_are_what_was_asked_for);
    RUN(duplicates_come_twice);
    RUN(what_is_held_back_is_overtaken);
    RUN(the_rate_holds_and_the_queue_is_bounded);
    RUN(a_pulled_cable_loses_all);
    RUN(its_memory_is_bounded);
    RUN(a_seed_repeats_itself);
    return check_report();
}
