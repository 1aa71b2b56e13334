/* The thread of a puncher: waits for times and for sockets. */
#include "core/loop.h"
#include "core/punch_inner.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { /* in one turn, after which all else gets its own */
       SHOTS_AT_ONCE = 16,
       SOCKETS_AT_ONCE = 8,
       SOURCES_AT_ONCE = 64,
       ACCEPTED_AT_ONCE = 16,
       FEW = 64, /* that are closed before anything goes on */
};

static void lock(struct puncher *puncher) {
    pthread_mutex_lock(&puncher->lock);
}

static void unlock(struct puncher *puncher) {
    pthread_mutex_unlock(&puncher->lock);
}

static void note(struct puncher *puncher, enum punch_kind kind, int status,
                 const struct punch_flight *flight) {
    lock(puncher);
    punch_note(puncher, kind, status, flight->source.port, flight->remote_port);
    unlock(puncher);
}

/* --- sockets ------------------------------------------------------------------------------- */

static bool claim(struct puncher *puncher) {
    lock(puncher);
    bool room = punch_claim(puncher);
    unlock(puncher);
    return room;
}

static void unclaim(struct puncher *puncher) {
    lock(puncher);
    puncher->sockets--;
    unlock(puncher);
}

static int watch(struct puncher *puncher, struct punch_source *source, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = source};
    return epoll_ctl(puncher->epoll_fd, EPOLL_CTL_ADD, source->fd, &event) == 0 ? 0 : -errno;
}

static void drop_socket(struct puncher *puncher, struct punch_source *source) {
    if (source->fd < 0)
        return;
    close(source->fd);
    source->fd = -1;
    unclaim(puncher);
}

/* A listener on *port, unless there is one; 0 is any, and *port gets it. */
static int open_door(struct puncher *puncher, uint16_t *port) {
    lock(puncher);
    bool has = *port != 0 && punch_has_door(puncher, *port);
    bool room = has || punch_claim(puncher);
    unlock(puncher);
    if (has)
        return 0;
    struct punch_door *door = room ? calloc(1, sizeof *door) : NULL;
    int status = !room ? UV_EMFILE : !door ? UV_ENOMEM : 0;
    if (status == 0)
        status = punch_socket_listen(&puncher->place, port, &door->source.fd);
    if (status == 0) {
        door->source.listens = true;
        door->source.port = *port;
        status = watch(puncher, &door->source, EPOLLIN);
        if (status != 0)
            close(door->source.fd);
    }
    lock(puncher);
    if (status == 0)
        punch_add_door(puncher, *port);
    else
        puncher->sockets -= room;
    unlock(puncher);
    if (status != 0) {
        free(door);
        return status;
    }
    door->next = puncher->open_doors;
    puncher->open_doors = door;
    return 0;
}

static int make_socket(struct puncher *puncher, struct punch_flight *flight) {
    int status = flight->listens ? open_door(puncher, &flight->source.port) : 0;
    if (status != 0)
        return status;
    if (!claim(puncher))
        return UV_EMFILE;
    status = punch_socket_bound(&puncher->place, &flight->source.port, &flight->source.fd);
    if (status != 0)
        unclaim(puncher);
    return status;
}

/* --- holes --------------------------------------------------------------------------------- */

/* Takes a connection, whose socket is counted, over or closes it. */
static void offer(struct puncher *puncher, int fd, bool accepted) {
    struct punch_hole hole = {.fd = fd, .accepted = accepted, .at_ns = uv_hrtime()};
    enum punch_kind kind = accepted ? PUNCH_accepted : PUNCH_connected;
    if (punch_socket_ends(fd, &hole) != 0 || !ip_equal(&hole.remote, &puncher->place.remote))
        kind = PUNCH_stranger;
    else if (ip_equal(&hole.local, &hole.remote) && hole.local_port == hole.remote_port)
        kind = PUNCH_self;
    lock(puncher);
    bool wanted = kind == PUNCH_accepted || kind == PUNCH_connected;
    if (wanted && puncher->hole_count == PUNCH_HOLES_MAX)
        kind = PUNCH_crowded;
    punch_note(puncher, kind, 0, hole.local_port, hole.remote_port);
    wanted = wanted && kind != PUNCH_crowded;
    if (wanted) {
        size_t place = (puncher->hole_first + puncher->hole_count++) % PUNCH_HOLES_MAX;
        puncher->holes[place] = hole;
    } else {
        puncher->sockets--;
    }
    unlock(puncher);
    if (wanted)
        uv_async_send(&puncher->news);
    else
        punch_socket_abort(fd);
}

static void answer_door(struct puncher *puncher, const struct punch_source *door) {
    for (int i = 0; i < ACCEPTED_AT_ONCE; i++) {
        int fd = accept4(door->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        lock(puncher);
        puncher->sockets++; /* of those beyond the limit, PUNCH_HOLES_MAX stay */
        unlock(puncher);
        offer(puncher, fd, true);
    }
}

/* --- shots --------------------------------------------------------------------------------- */

static void end_flight(struct puncher *puncher, struct punch_flight *flight) {
    flight->over = true;
    timers_remove(&puncher->timers, &flight->due);
    lock(puncher);
    puncher->seen.alive--;
    unlock(puncher);
    uv_async_send(&puncher->news); /* it may have been the last */
}

static bool may_revive(struct puncher *puncher, const struct punch_flight *flight) {
    if (flight->revived >= flight->volley->revive)
        return false;
    lock(puncher);
    bool room = puncher->syns < puncher->syn_limit;
    puncher->syns += room;
    puncher->seen.revived += room;
    puncher->seen.withheld += !room;
    unlock(puncher);
    return room;
}

static bool is_refusal(int status) {
    return status == UV_ECONNREFUSED || status == UV_ECONNRESET; /* in SYN-RECEIVED */
}

/* The ICMP errors that end a connect() (icmp_err_convert() of Linux). */
static bool is_icmp(int status) {
    static const int errors[] = {UV_EHOSTUNREACH, UV_ENETUNREACH, UV_EHOSTDOWN, UV_ENONET,
                                 UV_ENOPROTOOPT,  UV_EACCES,      UV_EPROTO};
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (status == errors[i])
            return true;
    return false;
}

/* A connect() that has not led to a connection. */
static void fail(struct puncher *puncher, struct punch_flight *flight, int status) {
    bool sent = flight->sent_ns != 0, icmp = sent && is_icmp(status);
    drop_socket(puncher, &flight->source);
    note(puncher,
         is_refusal(status) ? PUNCH_refused
         : icmp             ? PUNCH_icmp
                            : PUNCH_failed,
         status, flight);
    if (is_refusal(status) && may_revive(puncher, flight)) {
        flight->revived++;
        if (timers_add(&puncher->timers, &flight->due,
                       flight->sent_ns + flight->volley->revive_gap_ns) == 0)
            return;
    }
    if (icmp)
        open_door(puncher, &flight->source.port);
    end_flight(puncher, flight);
}

static void shoot(struct puncher *puncher, struct punch_flight *flight) {
    int status = flight->source.fd < 0 ? make_socket(puncher, flight) : 0;
    if (status != 0) {
        fail(puncher, flight, status);
        return;
    }
    flight->sent_ns = 0;
    status =
        punch_socket_connect(&puncher->place, flight->source.fd, flight->remote_port, flight->ttl);
    if (status == 0 || is_refusal(status)) {
        flight->sent_ns = uv_hrtime();
        note(puncher, PUNCH_sent, 0, flight);
    }
    if (status == 0)
        status = watch(puncher, &flight->source, EPOLLOUT);
    if (status != 0)
        fail(puncher, flight, status);
}

static void look_at_flight(struct puncher *puncher, struct punch_flight *flight) {
    int fd = flight->source.fd, status = punch_socket_status(fd);
    if (status != 0) {
        fail(puncher, flight, status);
        return;
    }
    epoll_ctl(puncher->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
    flight->source.fd = -1;
    offer(puncher, fd, false);
    end_flight(puncher, flight);
}

/* --- turns --------------------------------------------------------------------------------- */

static void halt(struct puncher *puncher) {
    for (struct punch_held *held = puncher->held; held; held = held->next) {
        held->revive = 0;
        held->ready = held->count;
        for (size_t i = 0; i < held->count; i++) {
            struct punch_flight *flight = &held->flights[i];
            if (!flight->due.place)
                continue;
            drop_socket(puncher, &flight->source);
            end_flight(puncher, flight);
        }
    }
}

/* Shots of one time keep their order. */
static void take_volley(struct puncher *puncher, struct punch_held *held) {
    held->next = puncher->held;
    puncher->held = held;
    for (size_t i = 0; i < held->count; i++) {
        struct punch_flight *flight = &held->flights[i];
        uint64_t at_ns = flight->due.at_ns + i;
        if (timers_add(&puncher->timers, &flight->due, at_ns) != 0)
            fail(puncher, flight, UV_ENOMEM);
    }
}

static void take_in(struct puncher *puncher) {
    lock(puncher);
    bool must_halt = puncher->halt;
    struct punch_held *volleys = puncher->volleys;
    struct punch_door *doors = puncher->doors;
    puncher->halt = false;
    puncher->volleys = NULL;
    puncher->volleys_end = &puncher->volleys;
    puncher->doors = NULL;
    unlock(puncher);
    if (must_halt)
        halt(puncher);
    for (struct punch_door *next; doors; doors = next) {
        next = doors->next;
        doors->next = puncher->open_doors;
        puncher->open_doors = doors;
        watch(puncher, &doors->source, EPOLLIN);
    }
    for (struct punch_held *next; volleys; volleys = next) {
        next = volleys->next;
        take_volley(puncher, volleys);
    }
}

/* Whether there are more that are due. */
static bool shoot_due(struct puncher *puncher) {
    struct deadline *first;
    for (int i = 0; i < SHOTS_AT_ONCE; i++) {
        first = timers_first(&puncher->timers);
        if (!first || first->at_ns > uv_hrtime())
            return false;
        timers_remove(&puncher->timers, first);
        shoot(puncher, container_of(first, struct punch_flight, due));
    }
    return true;
}

/* Makes some sockets ahead. Whether there are more to be made. */
static bool make_ready(struct puncher *puncher) {
    int made = 0;
    for (struct punch_held *held = puncher->held; held; held = held->next)
        while (held->ready < held->count) {
            struct punch_flight *flight = &held->flights[held->ready];
            if (made++ == SOCKETS_AT_ONCE)
                return true;
            held->ready++;
            if (!flight->due.place || flight->source.fd >= 0)
                continue;
            int status = make_socket(puncher, flight);
            if (status != 0 && status != UV_EMFILE) /* others may be closed by then */
                fail(puncher, flight, status);
        }
    return false;
}

static void arm(struct puncher *puncher) {
    const struct deadline *first = timers_first(&puncher->timers);
    uint64_t due_ns = first ? first->at_ns : 0;
    if (due_ns == puncher->armed_ns)
        return;
    const struct itimerspec at = {
        .it_value = {(time_t)(due_ns / 1000000000), (long)(due_ns % 1000000000)}};
    timerfd_settime(puncher->timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
    puncher->armed_ns = due_ns;
}

static void look(struct puncher *puncher, bool busy) {
    struct epoll_event events[SOURCES_AT_ONCE];
    uint64_t count;
    if (!busy)
        arm(puncher);
    int ready = epoll_wait(puncher->epoll_fd, events, SOURCES_AT_ONCE, busy ? 0 : -1);
    for (int i = 0; i < ready; i++) {
        struct punch_source *source = events[i].data.ptr;
        if (events[i].data.ptr == &puncher->wake_fd)
            (void)!read(puncher->wake_fd, &count, sizeof count);
        else if (events[i].data.ptr == &puncher->timer_fd)
            puncher->armed_ns = read(puncher->timer_fd, &count, sizeof count) < 0
                                    ? puncher->armed_ns /* it was armed anew meanwhile */
                                    : 0;
        else if (source->listens)
            answer_door(puncher, source);
        else if (source->fd >= 0)
            look_at_flight(puncher, container_of(source, struct punch_flight, source));
    }
}

/* --- the end ------------------------------------------------------------------------------- */

static void close_doors(struct puncher *puncher) {
    for (struct punch_door *door = puncher->open_doors, *next; door; door = next) {
        next = door->next;
        close(door->source.fd);
        free(door);
    }
}

static void close_holes(struct puncher *puncher) {
    for (; puncher->hole_count > 0; puncher->hole_count--) {
        punch_socket_abort(puncher->holes[puncher->hole_first].fd);
        puncher->hole_first = (puncher->hole_first + 1) % PUNCH_HOLES_MAX;
    }
}

static void close_flights(struct puncher *puncher) {
    for (struct punch_held *held = puncher->held, *next; held; held = next) {
        next = held->next;
        for (size_t i = 0; i < held->count; i++)
            if (held->flights[i].source.fd >= 0)
                close(held->flights[i].source.fd);
        free(held);
    }
    puncher->held = NULL;
    timers_free(&puncher->timers);
}

/* Whoever closes the puncher waits for `stopped`. By then nothing more is sent or accepted; of
 * shots, which can be thousands, only few are closed so far. */
static void stop(struct puncher *puncher) {
    take_in(puncher);
    lock(puncher);
    close_holes(puncher);
    bool few = puncher->seen.alive <= FEW;
    unlock(puncher);
    close_doors(puncher);
    if (few)
        close_flights(puncher);
    lock(puncher);
    puncher->stopped = true;
    pthread_cond_signal(&puncher->has_stopped);
    unlock(puncher);
    close_flights(puncher);
}

void *punch_work(void *arg) {
    struct puncher *puncher = arg;
    while (!atomic_load(&puncher->stop)) {
        take_in(puncher);
        bool busy = shoot_due(puncher) || make_ready(puncher);
        look(puncher, busy);
    }
    stop(puncher);
    punch_release(puncher);
    return NULL;
}
