#include "core/punch_inner.h"

#include "core/err.h"
#include "core/loop.h"
#include "core/nic.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define STACK_SIZE (256 << 10) /* of which few pages are touched; sanitizers need the rest */

/* --- under the lock ------------------------------------------------------------------------ */

bool punch_claim(struct puncher *puncher) {
    if (puncher->sockets >= puncher->socket_limit)
        return false;
    puncher->sockets++;
    return true;
}

bool punch_has_door(const struct puncher *puncher, uint16_t port) {
    return puncher->ports[port / 8] >> port % 8 & 1;
}

void punch_add_door(struct puncher *puncher, uint16_t port) {
    puncher->ports[port / 8] |= (uint8_t)(1 << port % 8);
    puncher->seen.listening++;
}

static unsigned *group_of(enum punch_kind kind, unsigned counts[3], unsigned *most) {
    bool hole = kind == PUNCH_connected || kind == PUNCH_accepted || kind == PUNCH_self;
    int group = kind == PUNCH_sent ? 0 : hole ? 2 : 1;
    *most =
        ((const unsigned[]){PUNCH_SENT_LISTED, PUNCH_TROUBLE_LISTED, PUNCH_HOLES_LISTED})[group];
    return &counts[group];
}

static void count_failure(struct punch_seen *seen, int status) {
    for (size_t i = 0; status != 0 && i < PUNCH_FAILURES_MAX; i++)
        if (seen->failures[i].status == status || seen->failures[i].status == 0) {
            seen->failures[i].status = status;
            seen->failures[i].count++;
            return;
        }
}

void punch_note(struct puncher *puncher, enum punch_kind kind, int status, uint16_t local_port,
                uint16_t remote_port) {
    struct punch_seen *seen = &puncher->seen;
    unsigned most, *listed = group_of(kind, puncher->listed, &most);
    uint64_t now_ns = uv_hrtime();
    if (seen->counts[kind]++ == 0)
        seen->first_ns[kind] = now_ns;
    count_failure(seen, status);
    if (*listed == most) {
        seen->unlisted++;
        return;
    }
    ++*listed;
    seen->events[seen->event_count++] = (struct punch_event){
        .at_ns = now_ns,
        .kind = kind,
        .status = status,
        .local_port = local_port,
        .remote_port = remote_port,
    };
}

static int most_failures(const struct punch_seen *seen) {
    size_t most = 0;
    for (size_t i = 1; i < PUNCH_FAILURES_MAX; i++)
        if (seen->failures[i].count > seen->failures[most].count)
            most = i;
    return seen->failures[most].status ? seen->failures[most].status : UV_ECANCELED;
}

static int next_status(const struct puncher *puncher) {
    if (puncher->hole_count > 0)
        return 0;
    bool over = puncher->fired && puncher->seen.alive == 0 && puncher->seen.listening == 0;
    return over ? most_failures(&puncher->seen) : UV_EAGAIN;
}

/* --- the loop's side ----------------------------------------------------------------------- */

static void wake(struct puncher *puncher) {
    const uint64_t one = 1;
    (void)!write(puncher->wake_fd, &one, sizeof one);
}

int punch_listen(struct puncher *puncher, uint16_t port, uint16_t *bound) {
    pthread_mutex_lock(&puncher->lock);
    bool has = port != 0 && punch_has_door(puncher, port);
    bool room = has || punch_claim(puncher);
    pthread_mutex_unlock(&puncher->lock);
    if (bound)
        *bound = port;
    if (has)
        return 0;
    struct punch_door *door = room ? calloc(1, sizeof *door) : NULL;
    int status = !room ? UV_EMFILE : !door ? UV_ENOMEM : 0;
    if (status == 0)
        status = punch_socket_listen(&puncher->place, &port, &door->source.fd);
    pthread_mutex_lock(&puncher->lock);
    if (status != 0) {
        puncher->sockets -= room;
    } else {
        door->source.listens = true;
        door->source.port = port;
        door->next = puncher->doors;
        puncher->doors = door;
        punch_add_door(puncher, port);
    }
    pthread_mutex_unlock(&puncher->lock);
    if (status != 0) {
        free(door);
        return status;
    }
    if (bound)
        *bound = port;
    wake(puncher);
    return 0;
}

static struct punch_held *hold(const struct punch_volley *volley, uint64_t now_ns) {
    size_t size = sizeof(struct punch_held) + volley->count * sizeof(struct punch_flight);
    struct punch_held *held = calloc(1, size);
    if (!held)
        return NULL;
    held->at_ns = volley->at_ns ? volley->at_ns : now_ns;
    held->revive = volley->revive;
    held->revive_gap_ns = volley->revive_gap_ns;
    held->count = volley->count;
    for (size_t i = 0; i < volley->count; i++) {
        const struct punch_shot *shot = &volley->shots[i];
        held->flights[i] = (struct punch_flight){
            .source = {.fd = -1, .port = shot->local_port},
            .due = {.at_ns = held->at_ns + shot->after_ns},
            .volley = held,
            .remote_port = shot->remote_port,
            .ttl = shot->ttl,
            .listens = shot->listens,
        };
    }
    return held;
}

int punch_fire(struct puncher *puncher, const struct punch_volley *volley) {
    size_t sockets = volley->count;
    for (size_t i = 0; i < volley->count; i++) {
        if (volley->shots[i].remote_port == 0)
            return UV_EINVAL;
        sockets += volley->shots[i].listens;
    }
    if (volley->count == 0)
        return 0;
    pthread_mutex_lock(&puncher->lock);
    bool room = volley->count <= puncher->syn_limit - puncher->syns;
    pthread_mutex_unlock(&puncher->lock);
    if (!room)
        return UV_ENOBUFS;
    int status = punch_socket_room(sockets);
    if (status != 0)
        return status;
    struct punch_held *held = hold(volley, uv_hrtime());
    if (!held)
        return UV_ENOMEM;
    pthread_mutex_lock(&puncher->lock);
    if (!puncher->fired)
        puncher->seen.begun_ns = held->at_ns;
    puncher->fired = true;
    puncher->syns += (unsigned)held->count;
    puncher->seen.alive += (unsigned)held->count;
    *puncher->volleys_end = held;
    puncher->volleys_end = &held->next;
    pthread_mutex_unlock(&puncher->lock);
    wake(puncher);
    return 0;
}

void punch_halt(struct puncher *puncher) {
    pthread_mutex_lock(&puncher->lock);
    puncher->halt = true;
    struct punch_held *dropped = puncher->volleys;
    puncher->volleys = NULL;
    puncher->volleys_end = &puncher->volleys;
    for (struct punch_held *held = dropped; held; held = held->next)
        puncher->seen.alive -= (unsigned)held->count;
    pthread_mutex_unlock(&puncher->lock);
    for (struct punch_held *next; dropped; dropped = next) {
        next = dropped->next;
        free(dropped);
    }
    wake(puncher);
}

static void on_news(uv_async_t *news) {
    struct puncher *puncher = container_of(news, struct puncher, news);
    pthread_mutex_lock(&puncher->lock);
    int status = next_status(puncher);
    pthread_mutex_unlock(&puncher->lock);
    if (status == UV_EAGAIN)
        return;
    uv_unref((uv_handle_t *)news);
    notice_fire(&puncher->notice, status);
}

void punch_on_news(struct puncher *puncher, notice_cb call, void *arg) {
    puncher->notice = (struct notice){call, arg};
    if (!call) {
        uv_unref((uv_handle_t *)&puncher->news);
        return;
    }
    uv_ref((uv_handle_t *)&puncher->news);
    uv_async_send(&puncher->news);
}

int punch_next(struct puncher *puncher, struct punch_hole *out) {
    pthread_mutex_lock(&puncher->lock);
    int status = next_status(puncher);
    if (status == 0) {
        *out = puncher->holes[puncher->hole_first];
        puncher->hole_first = (puncher->hole_first + 1) % PUNCH_HOLES_MAX;
        puncher->hole_count--;
        puncher->sockets--;
    }
    pthread_mutex_unlock(&puncher->lock);
    return status;
}

void punch_seen(struct puncher *puncher, struct punch_seen *out) {
    pthread_mutex_lock(&puncher->lock);
    *out = puncher->seen;
    pthread_mutex_unlock(&puncher->lock);
}

/* --- opening, closing ---------------------------------------------------------------------- */

static int check(struct punch_place *place) {
    enum ip_kind kind = ip_kind(&place->remote);
    if (kind == IP_UNSPECIFIED || kind == IP_MULTICAST || kind == IP_BROADCAST)
        return UV_EINVAL;
    if (place->local.family == 0) {
        int status = nic_source(&place->remote, &place->local);
        if (status != 0)
            return status;
    }
    if (place->local.family != place->remote.family)
        return UV_EAFNOSUPPORT;
    uint16_t port = 0;
    int fd, status = punch_socket_bound(place, &port, &fd);
    if (status == 0)
        close(fd);
    return status;
}

/* What the thread waits for. */
static int open_descriptors(struct puncher *puncher) {
    struct epoll_event readable = {.events = EPOLLIN};
    puncher->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    puncher->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    puncher->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (puncher->wake_fd < 0 || puncher->timer_fd < 0 || puncher->epoll_fd < 0)
        return -errno;
    readable.data.ptr = &puncher->wake_fd;
    if (epoll_ctl(puncher->epoll_fd, EPOLL_CTL_ADD, puncher->wake_fd, &readable) != 0)
        return -errno;
    readable.data.ptr = &puncher->timer_fd;
    if (epoll_ctl(puncher->epoll_fd, EPOLL_CTL_ADD, puncher->timer_fd, &readable) != 0)
        return -errno;
    return 0;
}

void punch_release(struct puncher *puncher) {
    const int fds[] = {puncher->wake_fd, puncher->timer_fd, puncher->epoll_fd};
    if (atomic_fetch_sub(&puncher->owners, 1) > 1)
        return;
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    pthread_cond_destroy(&puncher->has_stopped);
    pthread_mutex_destroy(&puncher->lock);
    free(puncher);
}

static void on_closed(uv_handle_t *handle) {
    punch_release(container_of(handle, struct puncher, news));
}

/* Signals are for the other threads. */
static int start(struct puncher *puncher) {
    sigset_t all, before;
    pthread_attr_t attributes;
    pthread_t thread;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK_SIZE);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    atomic_fetch_add(&puncher->owners, 1);
    int error = pthread_create(&thread, &attributes, punch_work, puncher);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (error)
        punch_release(puncher);
    return -error;
}

static unsigned limit(unsigned asked, unsigned most) {
    return asked == 0 || asked > most ? most : asked;
}

int punch_open(uv_loop_t *loop, const struct punch_options *options, struct puncher **out) {
    struct puncher *puncher = calloc(1, sizeof *puncher);
    if (!puncher)
        return UV_ENOMEM;
    puncher->wake_fd = puncher->timer_fd = puncher->epoll_fd = -1;
    puncher->volleys_end = &puncher->volleys;
    puncher->socket_limit = limit(options->sockets, PUNCH_SOCKETS_MAX);
    puncher->syn_limit = limit(options->syns, PUNCH_SYNS_MAX);
    puncher->place.local = options->local;
    puncher->place.remote = options->remote;
    puncher->seen.begun_ns = uv_hrtime();
    pthread_mutex_init(&puncher->lock, NULL);
    pthread_cond_init(&puncher->has_stopped, NULL);
    atomic_init(&puncher->owners, 1);
    int status = 0;
    if (options->device && strlen(options->device) >= sizeof puncher->place.device)
        status = UV_ENODEV;
    else if (options->device)
        strcpy(puncher->place.device, options->device);
    if (status == 0)
        status = check(&puncher->place);
    if (status == 0)
        status = open_descriptors(puncher);
    if (status == 0)
        status = uv_async_init(loop, &puncher->news, on_news);
    if (status != 0) {
        punch_release(puncher);
        return status;
    }
    uv_unref((uv_handle_t *)&puncher->news);
    status = start(puncher);
    if (status != 0) {
        uv_close((uv_handle_t *)&puncher->news, on_closed);
        return status;
    }
    *out = puncher;
    return 0;
}

void punch_close(struct puncher *puncher) {
    atomic_store(&puncher->stop, true);
    wake(puncher);
    pthread_mutex_lock(&puncher->lock);
    while (!puncher->stopped)
        pthread_cond_wait(&puncher->has_stopped, &puncher->lock);
    pthread_mutex_unlock(&puncher->lock);
    puncher->notice = (struct notice){0};
    uv_close((uv_handle_t *)&puncher->news, on_closed);
}
