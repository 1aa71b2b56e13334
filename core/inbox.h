/* inbox: which of the messages that arrive are ours, fresh and new.
 *
 * Provides  inbox_open, from the bytes of a broker to a message that is proven; counters of what
 * was dropped Uses      seal, err Owns      the ids of accepted messages, for as long as a copy of
 * them would count as fresh Pure: the times are arguments. `now_ms` is the machine's clock in ms
 * since 1970, `offset_ms` what to add to it (by NTP): only the sum is compared with others' clocks.
 * Memory is bounded: when the table is full of ids that cannot be forgotten yet, further messages
 * are refused, so that no copy ever passes. */
#ifndef CORE_INBOX_H
#define CORE_INBOX_H

#include "core/seal.h"

#define INBOX_WINDOW_MS 60000 /* how far a sender's clock may be from ours, either way */
#define INBOX_IDS_MAX 32768   /* 250 a second over both sides of the window, and some */

/* Name in C and Lua, and what it counts. */
#define INBOX_COUNTERS(X)                                                                          \
    X(accepted, "proven, fresh and new")                                                           \
    X(oversized, "longer than a message may be")                                                   \
    X(malformed, "no sealed message at all")                                                       \
    X(foreign, "sealed to another key, or damaged on the way")                                     \
    X(forged, "with a signature that does not hold")                                               \
    X(stale, "from before our start, or beyond the window around our clock")                       \
    X(replayed, "seen before, as the copies by other brokers are")                                 \
    X(retained, "kept by a broker from earlier times")                                             \
    X(limited, "over the rate at which a broker's messages are opened")                            \
    X(overload, "dropped because a queue or the table of ids was full")

struct inbox_counters {
#define X(name, sentence) uint64_t name;
    INBOX_COUNTERS(X)
#undef X
};

struct inbox;

/* `started_ms` is now by the machine's clock: messages from before are not ours to answer. 0 or
 * UV_ENOMEM. */
int inbox_new(uint64_t started_ms, struct inbox **out);
void inbox_free(struct inbox *inbox);

/* Opens, proves and judges a message. 0, or the reason to drop it, which is counted: UV_EMSGSIZE,
 * ERR_EFORMAT, ERR_EFOREIGN, ERR_EREPLAYED, ERR_EFORGED, ERR_ESTALE (the sender is proven, so that
 * it may be told the time: *skew_ms, NULL allowed, is its clock minus ours), UV_ENOBUFS (no room
 * for its id). */
int inbox_open(struct inbox *inbox, const struct key *key, const uint8_t *bytes, size_t length,
               uint64_t now_ms, int64_t offset_ms, uint8_t buffer[SEAL_MAX_MESSAGE],
               struct seal_message *out, int64_t *skew_ms);

/* Counters that others add to: retained, limited, overload. */
struct inbox_counters *inbox_counters(struct inbox *inbox);

/* How many ids are kept now. */
size_t inbox_ids(const struct inbox *inbox);

#endif
