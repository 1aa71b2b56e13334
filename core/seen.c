#include "core/seen.h"

#include "core/bytes.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

enum { SLOTS_MIN = 64 };

struct seen_slot {
    uint8_t digest[SEEN_DIGEST_SIZE];
    uint64_t until_ms;
    bool taken;
};

int seen_init(struct seen *seen, size_t limit) {
    *seen = (struct seen){.slot_count = SLOTS_MIN, .limit = limit};
    seen->slots = calloc(SLOTS_MIN, sizeof *seen->slots);
    return seen->slots ? 0 : UV_ENOMEM;
}

void seen_free(struct seen *seen) {
    free(seen->slots);
    seen->slots = NULL;
}

/* The slot of this digest, or the empty one where it belongs. */
static struct seen_slot *find(struct seen_slot *slots, size_t count, const uint8_t *digest) {
    size_t at = (size_t)get_u64(digest) & (count - 1);
    while (slots[at].taken && memcmp(slots[at].digest, digest, SEEN_DIGEST_SIZE) != 0)
        at = (at + 1) & (count - 1);
    return &slots[at];
}

bool seen_has(const struct seen *seen, const uint8_t digest[SEEN_DIGEST_SIZE]) {
    return find(seen->slots, seen->slot_count, digest)->taken;
}

static bool must_stay(const struct seen_slot *slot, uint64_t now_ms) {
    return slot->taken && slot->until_ms >= now_ms;
}

/* Moves what must stay into a table that it fills to a quarter at most, but for the limit. */
static int sweep(struct seen *seen, uint64_t now_ms) {
    size_t live = 0, count = SLOTS_MIN;
    for (size_t i = 0; i < seen->slot_count; i++)
        live += must_stay(&seen->slots[i], now_ms);
    while (count < 2 * seen->limit && count < 4 * live)
        count *= 2;
    struct seen_slot *slots = calloc(count, sizeof *slots);
    if (!slots)
        return UV_ENOMEM;
    for (size_t i = 0; i < seen->slot_count; i++) {
        const struct seen_slot *slot = &seen->slots[i];
        if (must_stay(slot, now_ms))
            *find(slots, count, slot->digest) = *slot;
        else if (slot->taken && slot->until_ms > seen->forgotten_ms)
            seen->forgotten_ms = slot->until_ms;
    }
    free(seen->slots);
    seen->slots = slots;
    seen->slot_count = count;
    seen->used = live;
    return 0;
}

static bool swept_lately(const struct seen *seen, uint64_t now_ms) {
    uint64_t since_ms = now_ms > seen->swept_ms ? now_ms - seen->swept_ms : seen->swept_ms - now_ms;
    return since_ms < SEEN_PAUSE_MS;
}

int seen_add(struct seen *seen, const uint8_t digest[SEEN_DIGEST_SIZE], uint64_t until_ms,
             uint64_t now_ms) {
    if (seen->used >= seen->slot_count / 2) {
        bool full = seen->used >= seen->limit;
        if (full && swept_lately(seen, now_ms))
            return UV_ENOBUFS;
        if (sweep(seen, now_ms) != 0)
            return UV_ENOBUFS;
        if (full)
            seen->swept_ms = now_ms;
        if (seen->used >= seen->limit)
            return UV_ENOBUFS;
    }
    struct seen_slot *slot = find(seen->slots, seen->slot_count, digest);
    memcpy(slot->digest, digest, SEEN_DIGEST_SIZE);
    slot->until_ms = until_ms;
    slot->taken = true;
    seen->used++;
    return 0;
}
