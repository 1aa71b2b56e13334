#include "core/bucket.h"

static uint64_t thousandths_at(const struct bucket *bucket, uint64_t now_ms) {
    uint64_t full = (uint64_t)bucket->burst * 1000;
    uint64_t passed_ms = now_ms > bucket->last_ms ? now_ms - bucket->last_ms : 0;
    /* Long ago, the product would not fit; the bucket is full either way. */
    if (bucket->rate != 0 && passed_ms > full / bucket->rate)
        return full;
    uint64_t sum = bucket->thousandths + passed_ms * bucket->rate;
    return sum < full ? sum : full;
}

bool bucket_take(struct bucket *bucket, uint64_t now_ms) {
    bucket->thousandths = thousandths_at(bucket, now_ms);
    bucket->last_ms = now_ms;
    if (bucket->thousandths < 1000)
        return false;
    bucket->thousandths -= 1000;
    return true;
}

uint64_t bucket_wait_ms(const struct bucket *bucket, uint64_t now_ms) {
    uint64_t thousandths = thousandths_at(bucket, now_ms);
    if (thousandths >= 1000)
        return 0;
    if (bucket->rate == 0)
        return UINT64_MAX;
    return (1000 - thousandths + bucket->rate - 1) / bucket->rate;
}
