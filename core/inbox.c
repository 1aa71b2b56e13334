#include "core/inbox.h"

#include "core/err.h"
#include "core/seen.h"

#include <stdlib.h>

struct inbox {
    struct inbox_counters counters;
    uint64_t started_ms;
    uint8_t seed[SHA256_SIZE]; /* so that nobody can choose where an id goes in the table */
    struct seen ids;           /* each until its message is stale */
};

int inbox_new(uint64_t started_ms, struct inbox **out) {
    struct inbox *inbox = calloc(1, sizeof *inbox);
    if (!inbox || seen_init(&inbox->ids, INBOX_IDS_MAX) != 0) {
        free(inbox);
        return UV_ENOMEM;
    }
    inbox->started_ms = started_ms;
    crypto_random(inbox->seed, sizeof inbox->seed);
    *out = inbox;
    return 0;
}

void inbox_free(struct inbox *inbox) {
    if (!inbox)
        return;
    seen_free(&inbox->ids);
    free(inbox);
}

struct inbox_counters *inbox_counters(struct inbox *inbox) {
    return &inbox->counters;
}

size_t inbox_ids(const struct inbox *inbox) {
    return inbox->ids.used;
}

static uint64_t sum(uint64_t a, uint64_t b) {
    return a <= UINT64_MAX - b ? a + b : UINT64_MAX;
}

static uint64_t corrected(uint64_t time_ms, int64_t offset_ms) {
    if (offset_ms >= 0)
        return sum(time_ms, (uint64_t)offset_ms);
    uint64_t back = 0 - (uint64_t)offset_ms;
    return time_ms > back ? time_ms - back : 0;
}

/* time - now, as far as it can be said in 63 bits. */
static int64_t difference(uint64_t time_ms, uint64_t now_ms) {
    uint64_t distance = time_ms > now_ms ? time_ms - now_ms : now_ms - time_ms;
    int64_t size = distance < INT64_MAX ? (int64_t)distance : INT64_MAX;
    return time_ms > now_ms ? size : -size;
}

static int judge(struct inbox *inbox, const struct key *key, const uint8_t *bytes, size_t length,
                 uint64_t now_ms, int64_t offset_ms, uint8_t *buffer, struct seal_message *out,
                 int64_t *skew_ms) {
    uint8_t digest[SHA256_SIZE];
    int status = seal_decrypt(key, bytes, length, buffer, out);
    if (status != 0)
        return status;
    const struct piece pieces[] = {
        {inbox->seed, sizeof inbox->seed},
        {out->sender, sizeof out->sender},
        {out->id, sizeof out->id},
    };
    sha256(pieces, 3, digest);
    /* Copies by other brokers are most of what comes twice: they need no second verification. */
    if (seen_has(&inbox->ids, digest))
        return ERR_EREPLAYED;
    status = seal_verify(key, out);
    if (status != 0)
        return status;
    uint64_t time_ms = out->time_ms, now_here_ms = corrected(now_ms, offset_ms);
    int64_t skew = difference(time_ms, now_here_ms);
    if (skew_ms)
        *skew_ms = skew;
    /* A clock that is set back makes old messages look fresh, but not those that may be forgotten.
     */
    uint64_t forgotten_ms = inbox->ids.forgotten_ms;
    if (skew > INBOX_WINDOW_MS || skew < -INBOX_WINDOW_MS ||
        time_ms < corrected(inbox->started_ms, offset_ms) ||
        (forgotten_ms != 0 && time_ms <= forgotten_ms - INBOX_WINDOW_MS))
        return ERR_ESTALE;
    return seen_add(&inbox->ids, digest, sum(time_ms, INBOX_WINDOW_MS), now_here_ms);
}

int inbox_open(struct inbox *inbox, const struct key *key, const uint8_t *bytes, size_t length,
               uint64_t now_ms, int64_t offset_ms, uint8_t buffer[SEAL_MAX_MESSAGE],
               struct seal_message *out, int64_t *skew_ms) {
    struct inbox_counters *counters = &inbox->counters;
    int status = judge(inbox, key, bytes, length, now_ms, offset_ms, buffer, out, skew_ms);
    switch (status) {
    case 0:
        counters->accepted++;
        break;
    case UV_EMSGSIZE:
        counters->oversized++;
        break;
    case ERR_EFORMAT:
        counters->malformed++;
        break;
    case ERR_EFOREIGN:
        counters->foreign++;
        break;
    case ERR_EFORGED:
        counters->forged++;
        break;
    case ERR_ESTALE:
        counters->stale++;
        break;
    case ERR_EREPLAYED:
        counters->replayed++;
        break;
    default: /* no room, no memory */
        counters->overload++;
        break;
    }
    return status;
}
