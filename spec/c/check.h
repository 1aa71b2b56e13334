/* check: what a C test needs, and no more.
 *
 * A test program lists its cases in main() with RUN(case) and ends with `return check_report();`.
 */
#ifndef SPEC_C_CHECK_H
#define SPEC_C_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int check_passed, check_failed, check_bad;

#define CHECK(condition)                                                                           \
    ((condition) ? (void)0                                                                         \
                 : (void)(check_bad = 1, printf("  %s:%d: %s\n", __FILE__, __LINE__, #condition)))

#define CHECK_EQ(got, wanted)                                                                      \
    do {                                                                                           \
        long long got_ = (long long)(got), wanted_ = (long long)(wanted);                          \
        if (got_ != wanted_) {                                                                     \
            check_bad = 1;                                                                         \
            printf("  %s:%d: %s is %lld, not %lld\n", __FILE__, __LINE__, #got, got_, wanted_);    \
        }                                                                                          \
    } while (0)

#define CHECK_TEXT(got, wanted)                                                                    \
    do {                                                                                           \
        const char *got_ = (got), *wanted_ = (wanted);                                             \
        if (strcmp(got_, wanted_) != 0) {                                                          \
            check_bad = 1;                                                                         \
            printf("  %s:%d: %s is \"%s\", not \"%s\"\n", __FILE__, __LINE__, #got, got_,          \
                   wanted_);                                                                       \
        }                                                                                          \
    } while (0)

#define RUN(test)                                                                                  \
    do {                                                                                           \
        check_bad = 0;                                                                             \
        test();                                                                                    \
        check_bad ? check_failed++ : check_passed++;                                               \
        printf("%s - %s\n", check_bad ? "not ok" : "ok", #test);                                   \
    } while (0)

static inline int check_by_size(const void *a, const void *b) {
    double one = *(const double *)a, other = *(const double *)b;
    return (one > other) - (one < other);
}

/* The longest of some times but one, and sorts them: a machine that others use too stands still
 * now and then. */
static inline double check_longest_but_one(double *times, size_t count) {
    qsort(times, count, sizeof *times, check_by_size);
    return times[count - 2];
}

static inline int check_report(void) {
    printf("%d passed, %d failed\n", check_passed, check_failed);
    return check_failed != 0 || check_passed == 0;
}

#endif
