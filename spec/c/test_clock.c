#include "core/clock.h"
#include "spec/c/check.h"

#include <stdlib.h>
#include <uv.h>

#define MS 1000000LL

static struct clock_view view(int64_t offset_ms, int64_t error_ms) {
    return (struct clock_view){offset_ms * MS, error_ms * MS};
}

static void one_alone_is_believed(void) {
    struct clock_view views[] = {view(5, 2)}, found;
    bool agrees[1] = {false};
    CHECK_EQ(clock_select(views, 1, &found, agrees), 0);
    CHECK_EQ(found.offset_ns, 5 * MS);
    CHECK_EQ(found.error_ns, 2 * MS);
    CHECK(agrees[0]);
}

static void of_four_one_may_lie(void) {
    static const int64_t lies_ms[] = {3250, -3250, 21, -21, 1000000000000, -1000000000000};
    for (size_t i = 0; i < sizeof lies_ms / sizeof *lies_ms; i++)
        for (size_t place = 0; place < 4; place++) {
            struct clock_view views[] = {view(0, 10), view(1, 10), view(-1, 10), view(0, 10)};
            struct clock_view found;
            bool agrees[4];
            views[place] = view(lies_ms[i], 10);
            CHECK_EQ(clock_select(views, 4, &found, agrees), 0);
            CHECK(llabs(found.offset_ns) <= 1 * MS);
            CHECK(found.error_ns <= 12 * MS && found.error_ns >= 9 * MS);
            for (size_t k = 0; k < 4; k++)
                CHECK_EQ(agrees[k], k != place);
        }
}

/* What cannot be told from honest moves the outcome little, also when it claims to be exact. */
static void a_small_lie_does_little(void) {
    static const int64_t errors_ms[] = {0, 1, 10, 1000};
    for (size_t i = 0; i < 4; i++) {
        struct clock_view views[] = {view(0, 10), view(9, errors_ms[i]), view(1, 10), view(0, 10)};
        struct clock_view found;
        bool agrees[4];
        CHECK_EQ(clock_select(views, 4, &found, agrees), 0);
        CHECK(llabs(found.offset_ns) <= 1 * MS);
        CHECK(agrees[0] && agrees[2] && agrees[3]);
    }
}

static void two_of_five_may_lie_together(void) {
    struct clock_view views[] = {view(500, 5), view(0, 10), view(500, 5), view(2, 10), view(1, 8)};
    struct clock_view found;
    bool agrees[5];
    CHECK_EQ(clock_select(views, 5, &found, agrees), 0);
    CHECK_EQ(found.offset_ns, 1 * MS);
    CHECK(!agrees[0] && agrees[1] && !agrees[2] && agrees[3] && agrees[4]);
}

static void without_a_majority_nobody_is_right(void) {
    struct clock_view views[] = {view(0, 10), view(100, 10), view(200, 10), view(300, 10)}, found;
    bool agrees[4];
    for (size_t count = 2; count <= 4; count++)
        CHECK_EQ(clock_select(views, count, &found, agrees), UV_EPROTO);
    views[3] = view(101, 10);
    CHECK_EQ(clock_select(views, 4, &found, agrees), UV_EPROTO); /* two of four are no majority */
}

static void a_far_one_and_a_near_one_agree(void) {
    struct clock_view views[] = {view(40, 100), view(0, 2)}, found;
    bool agrees[2];
    CHECK_EQ(clock_select(views, 2, &found, agrees), 0);
    CHECK(agrees[0] && agrees[1]);
    CHECK(llabs(found.offset_ns) <= 2 * MS); /* within what the near one can be wrong by */
    CHECK(found.error_ns <= 4 * MS);
}

static void the_error_is_a_bound(void) {
    srand(7);
    for (int round = 0; round < 20000; round++) {
        struct clock_view views[9], found;
        bool agrees[9];
        size_t count = 3 + (size_t)rand() % 7, liars = (count - 1) / 2;
        int64_t truth = (rand() % 2000000 - 1000000) * 1000LL;
        for (size_t i = 0; i < count; i++) {
            int64_t error = rand() % 50000 * 1000LL;
            views[i].error_ns = error;
            views[i].offset_ns = truth + (error ? rand() * 17LL % (2 * error) - error : 0);
            if (i < liars)
                views[i].offset_ns = truth + 200 * MS + rand() % 1000 * MS;
        }
        CHECK_EQ(clock_select(views, count, &found, agrees), 0);
        CHECK(llabs(found.offset_ns - truth) <= found.error_ns);
    }
}

static void numbers_have_bounds(void) {
    struct clock_view views[CLOCK_SERVERS_MAX + 1] = {{0, 0}}, found;
    bool agrees[CLOCK_SERVERS_MAX + 1];
    CHECK_EQ(clock_select(views, 0, &found, agrees), UV_EINVAL);
    CHECK_EQ(clock_select(views, CLOCK_SERVERS_MAX + 1, &found, agrees), UV_EINVAL);
    CHECK_EQ(clock_select(views, CLOCK_SERVERS_MAX, &found, agrees), 0);
    views[3].error_ns = -1;
    CHECK_EQ(clock_select(views, 4, &found, agrees), UV_EINVAL);
    views[3] = (struct clock_view){INT64_MAX, 0};
    CHECK_EQ(clock_select(views, 4, &found, agrees), UV_EINVAL);
    views[3] = (struct clock_view){0, INT64_MAX};
    CHECK_EQ(clock_select(views, 4, &found, agrees), UV_EINVAL);
}

static void it_goes_by_the_machine_until_it_is_set(void) {
    struct clock clock = {0};
    CHECK_EQ(clock_now_ns(&clock, 1000, 5000), 5000);
    CHECK_EQ(clock_error_ns(&clock, 1000), INT64_MAX);
    clock_set(&clock, &(struct clock_view){90000, 20}, 2000);
    CHECK_EQ(clock_now_ns(&clock, 2000, 1), 92000);
    CHECK_EQ(clock_now_ns(&clock, 2010, 1), 92010); /* whoever sets the machine's clock */
    CHECK_EQ(clock_error_ns(&clock, 2000), 20);
    CHECK_EQ(clock_error_ns(&clock, 2000 + 1000 * MS), 20 + 15000); /* 15 ppm */
}

static void it_does_not_run_backward(void) {
    struct clock clock = {0};
    clock_set(&clock, &(struct clock_view){10000 * MS, 0}, 0);
    CHECK_EQ(clock_now_ns(&clock, 100 * MS, 0), 10100 * MS);
    clock_set(&clock, &(struct clock_view){9900 * MS, 0}, 100 * MS);
    CHECK_EQ(clock_now_ns(&clock, 150 * MS, 0), 10100 * MS); /* stands still */
    CHECK_EQ(clock_now_ns(&clock, 201 * MS, 0), 10101 * MS);
    clock_set(&clock, &(struct clock_view){1 * MS, 0}, 201 * MS); /* it was all wrong */
    CHECK_EQ(clock_now_ns(&clock, 202 * MS, 0), 203 * MS);
}

static void the_steady_clock_goes_on(void) {
    int64_t before = clock_steady_ns();
    uv_sleep(20);
    int64_t passed = clock_steady_ns() - before;
    CHECK(passed >= 19 * MS && passed < 5000 * MS);
    CHECK(clock_machine_ns() > 1500000000000000000);
}

int main(void) {
    RUN(one_alone_is_believed);
    RUN(of_four_one_may_lie);
    RUN(a_small_lie_does_little);
    RUN(two_of_five_may_lie_together);
    RUN(without_a_majority_nobody_is_right);
    RUN(a_far_one_and_a_near_one_agree);
    RUN(the_error_is_a_bound);
    RUN(numbers_have_bounds);
    RUN(it_goes_by_the_machine_until_it_is_set);
    RUN(it_does_not_run_backward);
    RUN(the_steady_clock_goes_on);
    return check_report();
}
