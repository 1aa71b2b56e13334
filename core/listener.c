#include "core/listener.h"
#include "core/err.h"
#include "core/ip.h"
#include "core/loop.h"
#include "core/notice.h"

#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG                                                                                    \
    1024 /* what the system keeps before we accept; it takes no more than its own limit */
#define BATCH                                                                                      \
    32 /* accepted in one turn of the loop, so that a flood leaves time for those who speak */
#define SWEEP_MS 500
#define CROWD 512 /* what a queue holds at most, whatever the limits */

/* A connection that nobody has taken yet. It lies in one queue, in the order of arrival. */
struct guest {
    struct guest *next, *previous;
    struct queue *queue;
    struct listener *listener; /* NULL once that was closed */
    struct pipe *pipe;
    struct arrival *arrival; /* for whom it waits, or NULL */
    bool spoken;             /* something has come from it */
    uint64_t source;
    uint64_t since_ms;
};

struct queue {
    struct guest *first, *last;
    unsigned count;
};

struct arrival {
    struct arrival *next;
    struct listener *listener; /* NULL once that was closed */
    struct notice ready;
    uint8_t token[PIPE_TOKEN_SIZE];
};

struct listener {
    uv_tcp_t tcp;
    uv_timer_t timer; /* runs while there are unfinished guests */
    uv_timer_t soon;  /* tells of what is there already, outside of the call that asked */
    struct tls_identity *identity;
    struct queue
        unfinished; /* until they have committed; those that wait for an arrival's owner too */
    struct queue untaken;
    struct queue leaving; /* refused, while the alert that says so is on its way */
    struct arrival *arrivals;
    unsigned arrival_count;
    struct notice ready, closed;
    struct listener_stats stats;
    struct listener_limits limits;
    unsigned handles;
    uint16_t port;
    bool closing;
    bool held; /* libuv holds an accepted connection, and accepts no further one until we take it */
    unsigned batch;
};

/* ---- guests ---- */

static void queue_add(struct queue *queue, struct guest *guest) {
    guest->queue = queue;
    guest->next = NULL;
    guest->previous = queue->last;
    *(queue->last ? &queue->last->next : &queue->first) = guest;
    queue->last = guest;
    queue->count++;
}

static void queue_remove(struct guest *guest) {
    struct queue *queue = guest->queue;
    *(guest->previous ? &guest->previous->next : &queue->first) = guest->next;
    *(guest->next ? &guest->next->previous : &queue->last) = guest->previous;
    queue->count--;
    guest->queue = NULL;
}

/* An IPv4 address, or the /64 that one site of IPv6 has (RFC 6177): who pays for what it sends. */
static uint64_t source_of(const struct pipe *pipe) {
    struct sockaddr_storage address;
    struct ip ip = {0};
    uint64_t source = 0;
    uint16_t port;
    if (pipe_remote(pipe, &address) == 0)
        ip_from_sockaddr((const struct sockaddr *)&address, &ip, &port);
    memcpy(&source, ip.bytes, ip.family == 6 ? 8 : 4);
    return source;
}

/* Of the source that has most guests, the oldest that has said nothing, or else the oldest. */
static struct guest *crowded_out(const struct queue *queue) {
    struct { /* by source; open addressing, never more than half full */
        struct guest *oldest, *silent;
        unsigned count;
    } tally[2 * CROWD] = {0};
    const size_t places = sizeof tally / sizeof *tally;
    size_t worst = 0;
    for (struct guest *guest = queue->first; guest; guest = guest->next) {
        size_t at = (size_t)((guest->source * 0x9e3779b97f4a7c15u) >> 32) %
                    places; /* 2^64 / golden ratio */
        while (tally[at].oldest && tally[at].oldest->source != guest->source)
            at = (at + 1) % places;
        if (!tally[at].oldest)
            tally[at].oldest = guest;
        if (!tally[at].silent && !guest->spoken)
            tally[at].silent = guest;
        if (++tally[at].count > tally[worst].count)
            worst = at;
    }
    return tally[worst].silent ? tally[worst].silent : tally[worst].oldest;
}

static void guest_gone(void *arg, int status) {
    struct guest *guest = arg;
    (void)status;
    if (guest->queue)
        queue_remove(guest);
    free(guest);
}

/* Out at once. */
static void guest_drop(struct guest *guest) {
    if (guest->queue)
        queue_remove(guest);
    pipe_abort(guest->pipe, guest_gone, guest);
}

/* Out, but not before the alert has left; it counts as unfinished until then. */
static void guest_refuse(struct guest *guest) {
    queue_remove(guest);
    queue_add(&guest->listener->leaving, guest);
    pipe_close(guest->pipe, guest_gone, guest);
}

/* The pipe becomes the caller's. */
static struct pipe *guest_release(struct guest *guest) {
    struct pipe *pipe = guest->pipe;
    queue_remove(guest);
    free(guest);
    return pipe;
}

static void make_room(struct listener *listener, struct queue *queue, unsigned limit) {
    while (queue->count >= limit) {
        listener->stats.evicted++;
        guest_drop(crowded_out(queue));
    }
}

/* ---- what happens to them ---- */

static void on_secured(void *arg, int status) {
    struct guest *guest = arg;
    struct listener *listener = guest->listener;
    if (status != 0) {
        listener->stats.failed++;
        guest_refuse(guest);
        return;
    }
    listener->stats.finished++;
    make_room(listener, &listener->untaken, listener->limits.untaken);
    queue_remove(guest);
    queue_add(&listener->untaken, guest);
    notice_fire(&listener->ready, 0);
}

static struct arrival *arrival_find(const struct listener *listener, const uint8_t *token) {
    struct arrival *found = NULL;
    for (struct arrival *arrival = listener->arrivals; arrival; arrival = arrival->next)
        if (CRYPTO_memcmp(arrival->token, token, PIPE_TOKEN_SIZE) == 0)
            found = arrival;
    return found;
}

static void on_greeted(void *arg, int status) {
    struct guest *guest = arg;
    struct listener *listener = guest->listener;
    guest->spoken = true;
    if (status == PIPE_HELLO) {
        status = pipe_secure(guest->pipe, TLS_SERVER, NULL, NULL, on_secured, guest);
    } else if (status == PIPE_PREFACE) {
        guest->arrival = arrival_find(listener, pipe_token(guest->pipe));
        if (guest->arrival) {
            notice_fire(&guest->arrival->ready, 0);
            return;
        }
        listener->stats.unexpected++;
        guest_drop(guest);
        return;
    }
    if (status != 0) {
        listener->stats.failed++;
        guest_drop(guest);
    }
}

static void on_sweep(uv_timer_t *timer);
static void on_soon(uv_timer_t *timer);

/* Takes in the connection that libuv has accepted. */
static void take_in(struct listener *listener) {
    struct guest *guest = calloc(1, sizeof *guest);
    struct pipe *pipe = NULL;
    if (!uv_is_active((uv_handle_t *)&listener->timer))
        uv_timer_start(&listener->timer, on_sweep, SWEEP_MS, SWEEP_MS);
    listener->held = !guest || pipe_new(listener->tcp.loop, listener->identity, &pipe) != 0;
    if (listener->held) { /* no memory now: the sweep tries again */
        free(guest);
        return;
    }
    make_room(listener, &listener->leaving, listener->limits.unfinished);
    make_room(listener, &listener->unfinished, listener->limits.unfinished);
    listener->stats.accepted++;
    guest->listener = listener;
    guest->pipe = pipe;
    guest->since_ms = uv_now(listener->tcp.loop);
    queue_add(&listener->unfinished, guest);
    if (pipe_accept(pipe, (uv_stream_t *)&listener->tcp) != 0 ||
        pipe_greet(pipe, on_greeted, guest) != 0) {
        guest_drop(guest);
        return;
    }
    guest->source = source_of(pipe);
}

static void on_sweep(uv_timer_t *timer) {
    struct listener *listener = container_of(timer, struct listener, timer);
    uint64_t now = uv_now(timer->loop);
    if (listener->held)
        take_in(listener);
    while (listener->unfinished.first &&
           now - listener->unfinished.first->since_ms >= listener->limits.patience_ms) {
        listener->stats.expired++;
        guest_drop(listener->unfinished.first);
    }
    if (!listener->unfinished.first && !listener->held)
        uv_timer_stop(timer);
}

static void on_connection(uv_stream_t *server, int status) {
    struct listener *listener = container_of(server, struct listener, tcp);
    if (status != 0) /* no descriptors are left: libuv has closed what was waiting; go on */
        return;
    if (++listener->batch <= BATCH) {
        take_in(listener);
        return;
    }
    listener->held = true;
    uv_timer_start(&listener->soon, on_soon, 0, 0);
}

/* ---- the port ---- */

/* A bound socket. SO_REUSEPORT is set once it has the port alone: pipes may then dial from the same
 * port, but no other listener, not even one of the same user, gets a share of it. Accepted sockets
 * inherit the options. */
static int bound_socket(const struct sockaddr *address, uint16_t port, int *out) {
    struct sockaddr_storage any;
    const int on = 1, off = 0, idle_s = PIPE_KEEPALIVE_S;
    int family = address ? address->sa_family : AF_INET6;
    if (!address) {
        any = (struct sockaddr_storage){.ss_family = AF_INET6};
        ((struct sockaddr_in6 *)&any)->sin6_port = htons(port);
        address = (const struct sockaddr *)&any;
    }
    socklen_t size = family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        (family != AF_INET6 || address != (const struct sockaddr *)&any ||
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) == 0) &&
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) == 0 &&
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s) == 0 &&
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0 &&
        bind(fd, address, size) == 0 && listen(fd, BACKLOG) == 0 &&
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0) {
        *out = fd;
        return 0;
    }
    int status = -errno;
    close(fd);
    return status;
}

static int open_port(struct listener *listener, const struct sockaddr *address, uint16_t port) {
    int fd;
    int status = bound_socket(address, port, &fd);
    if (!address && (status == UV_EAFNOSUPPORT || status == UV_EADDRNOTAVAIL)) {
        struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(port)};
        status = bound_socket((const struct sockaddr *)&any, port, &fd);
    }
    if (status != 0)
        return status;
    status = uv_tcp_open(&listener->tcp, fd);
    if (status != 0) {
        close(fd);
        return status;
    }
    struct sockaddr_storage bound;
    struct ip ip;
    int size = sizeof bound;
    status = uv_tcp_getsockname(&listener->tcp, (struct sockaddr *)&bound, &size);
    if (status != 0)
        return status;
    ip_from_sockaddr((const struct sockaddr *)&bound, &ip, &listener->port);
    return uv_listen((uv_stream_t *)&listener->tcp, BACKLOG, on_connection);
}

static void on_closed(struct listener *listener) {
    if (--listener->handles > 0)
        return;
    struct notice closed = listener->closed;
    tls_identity_drop(listener->identity);
    free(listener);
    notice_fire(&closed, 0);
}

static void on_tcp_closed(uv_handle_t *handle) {
    on_closed(container_of(handle, struct listener, tcp));
}

static void on_timer_closed(uv_handle_t *handle) {
    on_closed(container_of(handle, struct listener, timer));
}

static void on_soon_closed(uv_handle_t *handle) {
    on_closed(container_of(handle, struct listener, soon));
}

int listener_new(uv_loop_t *loop, struct tls_identity *identity, const struct sockaddr *address,
                 uint16_t port, struct listener **out) {
    struct listener *listener = calloc(1, sizeof *listener);
    if (!listener)
        return UV_ENOMEM;
    uv_tcp_init(loop, &listener->tcp);
    uv_timer_init(loop, &listener->timer);
    uv_timer_init(loop, &listener->soon);
    listener->handles = 3;
    listener->identity = tls_identity_keep(identity);
    listener->limits =
        (struct listener_limits){.unfinished = CROWD, .untaken = 128, .patience_ms = 10000};
    int status = open_port(listener, address, port);
    if (status != 0) {
        listener_close(listener, NULL, NULL);
        return status;
    }
    *out = listener;
    return 0;
}

static unsigned within(unsigned number) {
    return number < 1 ? 1 : number > CROWD ? CROWD : number;
}

void listener_limit(struct listener *listener, const struct listener_limits *limits) {
    listener->limits = *limits;
    listener->limits.unfinished = within(limits->unfinished);
    listener->limits.untaken = within(limits->untaken);
}

uint16_t listener_port(const struct listener *listener) {
    return listener->port;
}

/* ---- what others call ---- */

static struct guest *guest_for(const struct arrival *arrival) {
    if (!arrival->listener)
        return NULL;
    struct guest *guest = arrival->listener->unfinished.first;
    while (guest && guest->arrival != arrival)
        guest = guest->next;
    return guest;
}

static void on_soon(uv_timer_t *timer) {
    struct listener *listener = container_of(timer, struct listener, soon);
    listener->batch = 0;
    if (listener->held)
        take_in(listener);
    if (listener->untaken.first)
        notice_fire(&listener->ready, 0);
    for (struct arrival *arrival = listener->arrivals; arrival; arrival = arrival->next)
        if (arrival->ready.call && guest_for(arrival)) {
            notice_fire(&arrival->ready, 0);
            if (!listener
                     ->closing) /* the list may have changed: look at the others in another turn */
                uv_timer_start(timer, on_soon, 0, 0);
            return;
        }
}

struct pipe *listener_accept(struct listener *listener) {
    return listener->untaken.first ? guest_release(listener->untaken.first) : NULL;
}

void listener_on_pipe(struct listener *listener, pipe_cb ready, void *arg) {
    listener->ready = (struct notice){ready, arg};
    if (ready && listener->untaken.first && !listener->closing)
        uv_timer_start(&listener->soon, on_soon, 0, 0);
}

int listener_expect(struct listener *listener, const uint8_t token[PIPE_TOKEN_SIZE],
                    struct arrival **out) {
    if (listener->closing)
        return ERR_ECLOSED;
    if (arrival_find(listener, token))
        return UV_EEXIST;
    if (listener->arrival_count >= LISTENER_ARRIVALS)
        return UV_ENOBUFS;
    struct arrival *arrival = calloc(1, sizeof *arrival);
    if (!arrival)
        return UV_ENOMEM;
    memcpy(arrival->token, token, PIPE_TOKEN_SIZE);
    arrival->listener = listener;
    arrival->next = listener->arrivals;
    listener->arrivals = arrival;
    listener->arrival_count++;
    *out = arrival;
    return 0;
}

struct pipe *arrival_take(struct arrival *arrival) {
    struct guest *guest = guest_for(arrival);
    return guest ? guest_release(guest) : NULL;
}

void arrival_on_pipe(struct arrival *arrival, pipe_cb ready, void *arg) {
    arrival->ready = (struct notice){ready, arg};
    if (ready && guest_for(arrival))
        uv_timer_start(&arrival->listener->soon, on_soon, 0, 0);
}

void arrival_forget(struct arrival *arrival) {
    struct guest *guest;
    while ((guest = guest_for(arrival)))
        guest_drop(guest);
    if (arrival->listener) {
        struct arrival **link = &arrival->listener->arrivals;
        while (*link != arrival)
            link = &(*link)->next;
        *link = arrival->next;
        arrival->listener->arrival_count--;
    }
    OPENSSL_cleanse(arrival->token, sizeof arrival->token);
    free(arrival);
}

void listener_stats(const struct listener *listener, struct listener_stats *out) {
    *out = listener->stats;
    out->unfinished = listener->unfinished.count;
    out->untaken = listener->untaken.count;
}

void listener_close(struct listener *listener, pipe_cb closed, void *arg) {
    if (closed && !listener->closed.call)
        listener->closed = (struct notice){closed, arg};
    if (listener->closing)
        return;
    listener->closing = true;
    listener->ready = (struct notice){0};
    while (listener->unfinished.first)
        guest_drop(listener->unfinished.first);
    while (listener->untaken.first)
        guest_drop(listener->untaken.first);
    while (listener->leaving.first) /* these still have something to say; they go by themselves */
        queue_remove(listener->leaving.first);
    for (struct arrival *arrival = listener->arrivals; arrival; arrival = arrival->next) {
        arrival->listener = NULL;
        arrival->ready = (struct notice){0};
    }
    listener->arrivals = NULL;
    uv_close((uv_handle_t *)&listener->tcp, on_tcp_closed);
    uv_close((uv_handle_t *)&listener->timer, on_timer_closed);
    uv_close((uv_handle_t *)&listener->soon, on_soon_closed);
}
