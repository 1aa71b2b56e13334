/* punch_inner: what the two threads of a puncher share, for core/punch*.c alone.
 *
 *   loop                                 thread
 *   punch_fire    -- volleys  -->        waits for their time, connects
 *   punch_listen  -- doors    -->        accepts
 *   punch_next    <-- holes   --         what has connected
 */
#ifndef CORE_PUNCH_INNER_H
#define CORE_PUNCH_INNER_H

#include "core/punch.h"
#include "core/timers.h"

#include <pthread.h>
#include <stdatomic.h>

/* What epoll tells of: a shot's socket or a listener. */
struct punch_source {
    bool listens;
    int fd; /* -1: none */
    uint16_t port;
};

struct punch_door { /* a listener */
    struct punch_source source;
    struct punch_door *next;
};

struct punch_flight { /* a shot on its way */
    struct punch_source source;
    struct deadline due; /* set until its time has come */
    struct punch_held *volley;
    uint64_t sent_ns;
    unsigned revived;
    uint16_t remote_port;
    uint8_t ttl;
    bool listens, over;
};

struct punch_held { /* a volley */
    struct punch_held *next;
    uint64_t at_ns;
    unsigned revive;
    uint64_t revive_gap_ns;
    size_t count, ready; /* ready: shots whose sockets were made ahead, or need not be */
    struct punch_flight flights[];
};

struct punch_place { /* what sockets are bound to */
    struct ip local, remote;
    char device[IF_NAMESIZE]; /* "" for any */
};

struct puncher {
    /* of the loop's thread */
    uv_async_t news;
    struct notice notice;

    /* of both: nobody changes them */
    struct punch_place place;
    unsigned socket_limit, syn_limit;
    int wake_fd;

    atomic_bool stop;
    atomic_uint owners; /* the thread, and the handle until it is closed; the last one frees it */

    /* of both, under the lock */
    pthread_mutex_t lock;
    pthread_cond_t has_stopped;
    bool stopped;
    struct punch_held *volleys, **volleys_end; /* that the other thread has not taken in yet */
    struct punch_door *doors;                  /* the same */
    bool halt, fired;
    unsigned sockets; /* in use */
    unsigned syns;    /* sent, or to be sent */
    struct punch_hole holes[PUNCH_HOLES_MAX];
    unsigned hole_first, hole_count;
    struct punch_seen seen;
    unsigned listed[3];                  /* events: SYNs, trouble, what connected */
    uint8_t ports[(UINT16_MAX + 1) / 8]; /* a bit for each that has a listener */

    /* of the thread */
    int epoll_fd, timer_fd;
    struct timers timers;
    struct punch_held *held;
    struct punch_door *open_doors;
    uint64_t armed_ns; /* what the timer waits for; 0: nothing */
};

/* --- punch_socket.c: sockets, which know nothing of a puncher ------------------------------- */

/* A socket that is bound to a port of the local address, 0 for any; *port gets it. */
int punch_socket_bound(const struct punch_place *place, uint16_t *port, int *out);
int punch_socket_listen(const struct punch_place *place, uint16_t *port, int *out);
/* connect(): 0 when it is under way, or done. A TTL of 0 is the system's. */
int punch_socket_connect(const struct punch_place *place, int fd, uint16_t port, uint8_t ttl);
/* What became of it: 0 when it is connected. */
int punch_socket_status(int fd);
/* A connection's endpoints. */
int punch_socket_ends(int fd, struct punch_hole *out);
/* Ends a connection by RST, so that its endpoints are free for another at once. */
void punch_socket_abort(int fd);
/* Makes sure that so many more descriptors can be opened: 0 or UV_EMFILE. */
int punch_socket_room(size_t more);

/* --- punch.c: what both threads do, under the lock ------------------------------------------ */

void punch_release(struct puncher *puncher); /* not under the lock: for an owner that goes */
bool punch_claim(struct puncher *puncher);   /* one more socket; false at the limit */
bool punch_has_door(const struct puncher *puncher, uint16_t port);
void punch_add_door(struct puncher *puncher, uint16_t port);
void punch_note(struct puncher *puncher, enum punch_kind kind, int status, uint16_t local_port,
                uint16_t remote_port);

/* --- punch_thread.c ------------------------------------------------------------------------- */

void *punch_work(void *puncher);

#endif
