/* timers: deadlines in order; a binary heap that knows nothing of clocks.
 *
 * Provides  struct timers, an ordered set of deadlines that lie in the caller's own structs
 * Uses      nothing of ours
 * Owns      the array of pointers; never what they point to
 * Pure: time is a number of the caller's, so the same heap serves real and virtual time. */
#ifndef CORE_TIMERS_H
#define CORE_TIMERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct deadline {
    uint64_t at_ns;
    size_t place;                              /* 1 + index in the heap; 0 when it is not set */
    void (*passed)(struct deadline *deadline); /* for whoever watches the clock to call */
};

struct timers {
    struct deadline **heap;
    size_t count, capacity;
};

/* Sets a deadline that is not set yet. Returns 0 or UV_ENOMEM. */
int timers_add(struct timers *timers, struct deadline *deadline, uint64_t at_ns);

/* Unsets a deadline; nothing happens when it is not set. */
void timers_remove(struct timers *timers, struct deadline *deadline);

/* The earliest deadline, or NULL. */
struct deadline *timers_first(const struct timers *timers);

void timers_free(struct timers *timers);

#endif
