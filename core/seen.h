/* seen: a bounded memory of what has been seen lately.
 *
 * Provides  struct seen: add, has; each entry has a time until which it may not be forgotten
 * Uses      bytes
 * Owns      a hash table that grows and shrinks with what it holds
 * Pure. When it is full of entries that must be kept, further ones are refused: it never forgets
 * early. The digests must be ones that nobody can choose, such as keyed hashes. */
#ifndef CORE_SEEN_H
#define CORE_SEEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SEEN_DIGEST_SIZE 16
#define SEEN_PAUSE_MS 1000 /* how often a full table is searched for what may go */

struct seen_slot;

struct seen {
    struct seen_slot *slots; /* open addressing, at most half full */
    size_t slot_count;       /* a power of two */
    size_t limit;            /* of entries */
    size_t used;
    uint64_t swept_ms;
    uint64_t forgotten_ms; /* the latest `until_ms` of all that was forgotten, or 0 */
};

/* `limit` is a power of two, at least 32. 0 or UV_ENOMEM. */
int seen_init(struct seen *seen, size_t limit);
void seen_free(struct seen *seen);

bool seen_has(const struct seen *seen, const uint8_t digest[SEEN_DIGEST_SIZE]);

/* Remembers a digest that is not there yet, at least until the clock shows more than `until_ms`. 0,
 * or UV_ENOBUFS when there is no room. */
int seen_add(struct seen *seen, const uint8_t digest[SEEN_DIGEST_SIZE], uint64_t until_ms,
             uint64_t now_ms);

#endif
