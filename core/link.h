/* link: one direction of a link, as packets live it: delay, jitter, loss, duplicates, changes of
 * order, a rate with a queue before it, and the cable that is pulled.
 *
 * Provides  struct link: packets in, and the same ones out when their time has come
 * Uses      chance, frame
 * Owns      copies of the packets, in a pool that grows as needed and is used again
 * Pure: time (ns of a clock that does not go back) and the seed of all chance are arguments. */
#ifndef CORE_LINK_H
#define CORE_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINK_PACKETS 32768        /* at most, wherever they are on the link: 50 MB */
#define LINK_QUEUE_NS 100000000   /* what waits for its turn when there is a rate: 100 ms, */
#define LINK_QUEUE_PACKETS 16     /* or so many packets, if that is more */
#define LINK_HELD_BACK_NS 3000000 /* how much later a packet comes that changes its place: 3 ms */

struct link_config {
    uint64_t delay_ns;
    uint64_t jitter_ns; /* the delay varies by up to so much, either way; the order stays */
    double loss, duplicate, reorder; /* shares of the packets, 0 to 1, each by itself */
    uint64_t rate;                   /* bits per second; 0 is no limit */
    bool down;                       /* the cable is pulled: what is on its way is lost too */
};

/* What becomes of a packet. */
enum link_fate {
    LINK_QUEUED,
    LINK_DUPLICATED, /* it will come twice */
    LINK_REORDERED,  /* it will come late */
    LINK_LOST,       /* by chance */
    LINK_FULL,       /* it found the queue full (tail drop) */
    LINK_DOWN,
    LINK_FATES, /* how many there are */
};

struct link_packet {
    uint8_t *bytes; /* to be read and written */
    size_t length;
    enum link_fate fate; /* the one that it got when it was pushed */
};

struct link;

int link_new(uint64_t seed, struct link **out); /* without delay, loss and limit */
void link_free(struct link *link);

/* Holds for what is pushed from now on. Where the delay has become less, what is on its way comes
 * so much sooner too, and nothing is overtaken; with another rate, what waits in the queue comes
 * with the first of it. */
void link_configure(struct link *link, const struct link_config *config);

/* Packets longer than FRAME_SIZE are LINK_LOST. */
enum link_fate link_push(struct link *link, uint64_t now_ns, const uint8_t *bytes, size_t length);

/* The next packet whose time has come; false when there is none. Its bytes are the caller's until
 * the next call for this link. */
bool link_pop(struct link *link, uint64_t now_ns, struct link_packet *out);

uint64_t link_next_due(const struct link *link); /* UINT64_MAX when it is empty */
unsigned link_count(const struct link *link);    /* packets on their way */
void link_flush(struct link *link);

#endif
