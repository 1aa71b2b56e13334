#include "core/link.h"
#include "core/chance.h"
#include "core/frame.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

#define SLOTS 64 /* that the pool grows by */

struct slot {
    struct slot *next;
    uint64_t due_ns;
    size_t length;
    enum link_fate fate;
    uint8_t bytes[FRAME_SIZE];
};

struct slots { /* a block of the pool */
    struct slots *next;
    struct slot slots[SLOTS];
};

/* Packets in the order of their times: none is put in with a time before the last one's. */
struct lane {
    struct slot *first, *last;
};

struct link {
    struct link_config config;
    struct chance chance;
    struct lane in_order, held_back; /* what comes out is the earlier of the two heads */
    uint64_t idle_at_ns;             /* when the last packet will have left the queue */
    struct slot *unused, *popped;
    struct slots *pool;
    unsigned pooled, count;
};

int link_new(uint64_t seed, struct link **out) {
    struct link *link = calloc(1, sizeof *link);
    if (!link)
        return UV_ENOMEM;
    link->chance.state = seed;
    *out = link;
    return 0;
}

void link_free(struct link *link) {
    if (!link)
        return;
    for (struct slots *slots = link->pool, *next; slots; slots = next) {
        next = slots->next;
        free(slots);
    }
    free(link);
}

static void hurry(struct lane *lane, uint64_t by_ns) {
    for (struct slot *slot = lane->first; slot; slot = slot->next)
        slot->due_ns = slot->due_ns > by_ns ? slot->due_ns - by_ns : 0;
}

void link_configure(struct link *link, const struct link_config *config) {
    const struct link_config before = link->config;
    link->config = *config;
    if (config->delay_ns < before.delay_ns) {
        hurry(&link->in_order, before.delay_ns - config->delay_ns);
        hurry(&link->held_back, before.delay_ns - config->delay_ns);
    }
    if (config->rate != before.rate) {
        link->idle_at_ns = 0;
        for (struct slot *slot = link->in_order.first; before.rate != 0 && slot; slot = slot->next)
            slot->due_ns = link->in_order.first->due_ns;
    }
    if (config->down)
        link_flush(link);
}

/* A share of none takes no number, so that what else happens does not depend on it. */
static bool happens(struct link *link, double share) {
    return share > 0 && chance_share(&link->chance) < share;
}

/* --- the pool ------------------------------------------------------------------------------ */

static void release(struct link *link, struct slot *slot) {
    slot->next = link->unused;
    link->unused = slot;
}

static struct slot *take(struct link *link) {
    if (!link->unused && link->pooled < LINK_PACKETS) {
        struct slots *slots = malloc(sizeof *slots);
        if (!slots)
            return NULL;
        slots->next = link->pool;
        link->pool = slots;
        link->pooled += SLOTS;
        for (size_t i = 0; i < SLOTS; i++)
            release(link, &slots->slots[i]);
    }
    struct slot *slot = link->unused;
    if (slot)
        link->unused = slot->next;
    return slot;
}

/* --- packets on their way ------------------------------------------------------------------ */

static struct slot *enqueue(struct link *link, struct lane *lane, uint64_t due_ns,
                            const uint8_t *bytes, size_t length) {
    struct slot *slot = take(link);
    if (!slot)
        return NULL;
    memcpy(slot->bytes, bytes, length);
    slot->length = length;
    slot->due_ns = lane->first && lane->last->due_ns > due_ns ? lane->last->due_ns : due_ns;
    slot->next = NULL;
    if (lane->first)
        lane->last->next = slot;
    else
        lane->first = slot;
    lane->last = slot;
    link->count++;
    return slot;
}

/* How long the link is busy with so many bytes. */
static uint64_t busy_ns(const struct link *link, size_t length) {
    return (uint64_t)length * 8 * 1000000000 / link->config.rate;
}

/* When the packet is through the queue; false when there is no room for it. */
static bool through_queue(struct link *link, uint64_t now_ns, size_t length, uint64_t *at_ns) {
    *at_ns = now_ns;
    if (link->config.rate == 0)
        return true;
    uint64_t begin_ns = link->idle_at_ns > now_ns ? link->idle_at_ns : now_ns;
    uint64_t room_ns = busy_ns(link, (size_t)LINK_QUEUE_PACKETS * FRAME_SIZE);
    if (begin_ns - now_ns > (room_ns > LINK_QUEUE_NS ? room_ns : LINK_QUEUE_NS))
        return false;
    *at_ns = link->idle_at_ns = begin_ns + busy_ns(link, length);
    return true;
}

static uint64_t delay_ns(struct link *link) {
    uint64_t jitter_ns = link->config.jitter_ns, delay = link->config.delay_ns;
    if (jitter_ns == 0)
        return delay;
    delay += (uint64_t)(chance_share(&link->chance) * 2 * (double)jitter_ns);
    return delay > jitter_ns ? delay - jitter_ns : 0;
}

enum link_fate link_push(struct link *link, uint64_t now_ns, const uint8_t *bytes, size_t length) {
    uint64_t due_ns;
    if (link->config.down)
        return LINK_DOWN;
    if (length > FRAME_SIZE || happens(link, link->config.loss))
        return LINK_LOST;
    if (!through_queue(link, now_ns, length, &due_ns))
        return LINK_FULL;
    due_ns += delay_ns(link);
    bool late = happens(link, link->config.reorder), twice = happens(link, link->config.duplicate);
    struct slot *slot = enqueue(link, late ? &link->held_back : &link->in_order,
                                late ? due_ns + LINK_HELD_BACK_NS : due_ns, bytes, length);
    if (!slot)
        return LINK_FULL;
    slot->fate = late ? LINK_REORDERED : LINK_QUEUED;
    struct slot *copy = twice ? enqueue(link, &link->in_order, due_ns, bytes, length) : NULL;
    if (copy)
        slot->fate = copy->fate = LINK_DUPLICATED;
    return slot->fate;
}

static struct lane *next_lane(struct link *link) {
    struct slot *in_order = link->in_order.first, *held_back = link->held_back.first;
    bool late = held_back && (!in_order || held_back->due_ns < in_order->due_ns);
    return late ? &link->held_back : &link->in_order;
}

uint64_t link_next_due(const struct link *link) {
    uint64_t due_ns = link->in_order.first ? link->in_order.first->due_ns : UINT64_MAX;
    const struct slot *late = link->held_back.first;
    return late && late->due_ns < due_ns ? late->due_ns : due_ns;
}

bool link_pop(struct link *link, uint64_t now_ns, struct link_packet *out) {
    struct lane *lane = next_lane(link);
    struct slot *slot = lane->first;
    if (link->popped)
        release(link, link->popped);
    link->popped = NULL;
    if (!slot || slot->due_ns > now_ns)
        return false;
    lane->first = slot->next;
    link->popped = slot;
    link->count--;
    *out = (struct link_packet){slot->bytes, slot->length, slot->fate};
    return true;
}

unsigned link_count(const struct link *link) {
    return link->count;
}

static void clear(struct link *link, struct lane *lane) {
    while (lane->first) {
        struct slot *slot = lane->first;
        lane->first = slot->next;
        release(link, slot);
    }
}

void link_flush(struct link *link) {
    clear(link, &link->in_order);
    clear(link, &link->held_back);
    link->count = 0;
    link->idle_at_ns = 0;
}
