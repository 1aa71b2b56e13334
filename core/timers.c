#include "core/timers.h"

#include <stdlib.h>
#include <uv.h>

static void put(struct timers *timers, struct deadline *deadline, size_t place) {
    timers->heap[place - 1] = deadline;
    deadline->place = place;
}

static void rise(struct timers *timers, struct deadline *deadline, size_t place) {
    while (place > 1 && timers->heap[place / 2 - 1]->at_ns > deadline->at_ns) {
        put(timers, timers->heap[place / 2 - 1], place);
        place /= 2;
    }
    put(timers, deadline, place);
}

static void sink(struct timers *timers, struct deadline *deadline, size_t place) {
    for (size_t child; (child = place * 2) <= timers->count; place = child) {
        if (child < timers->count && timers->heap[child]->at_ns < timers->heap[child - 1]->at_ns)
            child++;
        if (timers->heap[child - 1]->at_ns >= deadline->at_ns)
            break;
        put(timers, timers->heap[child - 1], place);
    }
    put(timers, deadline, place);
}

int timers_add(struct timers *timers, struct deadline *deadline, uint64_t at_ns) {
    if (timers->count == timers->capacity) {
        size_t capacity = timers->capacity ? timers->capacity * 2 : 16;
        struct deadline **heap = realloc(timers->heap, capacity * sizeof(struct deadline *));
        if (!heap)
            return UV_ENOMEM;
        timers->heap = heap;
        timers->capacity = capacity;
    }
    deadline->at_ns = at_ns;
    rise(timers, deadline, ++timers->count);
    return 0;
}

void timers_remove(struct timers *timers, struct deadline *deadline) {
    size_t place = deadline->place;
    if (!place)
        return;
    deadline->place = 0;
    struct deadline *last = timers->heap[--timers->count];
    if (last == deadline)
        return;
    if (place > 1 && timers->heap[place / 2 - 1]->at_ns > last->at_ns)
        rise(timers, last, place);
    else
        sink(timers, last, place);
}

struct deadline *timers_first(const struct timers *timers) {
    return timers->count ? timers->heap[0] : NULL;
}

void timers_free(struct timers *timers) {
    free(timers->heap);
    *timers = (struct timers){0};
}
