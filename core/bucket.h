/* bucket: a token bucket, which bounds how often something may happen.
 *
 * Provides  struct bucket
 * Uses      nothing of ours
 * Pure: the time is an argument, in ms of a clock that does not go back; if it does, no token is
 * made meanwhile. Tokens are counted in thousandths: one of `rate` tokens a second makes `rate`
 * thousandths a ms, exactly. */
#ifndef CORE_BUCKET_H
#define CORE_BUCKET_H

#include <stdbool.h>
#include <stdint.h>

#define BUCKET_MESSAGES_PER_S 250 /* of one broker: how many of its messages are opened */
#define BUCKET_MESSAGES_BURST 64

struct bucket {
    uint32_t rate;  /* tokens a second */
    uint32_t burst; /* tokens that it holds at most */
    uint64_t thousandths;
    uint64_t last_ms;
};

/* A full bucket. */
static inline struct bucket bucket_full(uint32_t rate, uint32_t burst, uint64_t now_ms) {
    return (struct bucket){rate, burst, (uint64_t)burst * 1000, now_ms};
}

/* Takes a token; false when there is none. */
bool bucket_take(struct bucket *bucket, uint64_t now_ms);

/* After how many ms there is a token: 0 when there is one now; UINT64_MAX when the rate is 0. */
uint64_t bucket_wait_ms(const struct bucket *bucket, uint64_t now_ms);

#endif
