#include "core/stun.h"
#include "core/crypto.h"
#include "core/loop.h"
#include "core/timers.h"

#include <errno.h>
#include <linux/errqueue.h>
#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ANSWER_SIZE 1500  /* of an answer; longer ones are not what was asked for */
#define TURN_DATAGRAMS 64 /* of one turn of the loop */
#define BUCKETS 256
#define SERVERS 32 /* whose other address is remembered; the oldest makes room */

static const uint64_t NS_PER_MS = 1000000;

struct stun_transaction {
    struct deadline deadline; /* the next request, or the end */
    struct stun_socket *socket;
    struct stun_transaction *next, **link; /* of those in the same bucket */
    struct stun_question question;
    uint8_t request[STUN_QUERY_SIZE];
    size_t request_size;
    uint64_t sent_ns, end_ns;
    unsigned requests;
    int softly; /* what a soft ICMP error said; else UV_ETIMEDOUT */
    stun_cb done;
    void *arg;
};

struct stun_socket {
    uv_poll_t poll;
    uv_timer_t timer;
    int fd;
    unsigned handles;
    bool closed;
    struct stun_endpoint local;
    struct stun_stats stats;
    struct timers timers;
    unsigned open;
    struct stun_transaction *buckets[BUCKETS];
    struct {
        struct stun_endpoint server, other;
    } known[SERVERS];
    unsigned known_count;
};

static bool same(const struct stun_endpoint *a, const struct stun_endpoint *b) {
    return a->port == b->port && ip_equal(&a->ip, &b->ip);
}

/* --- transactions -------------------------------------------------------------------------- */

/* Ids are random, so any of their bytes is a good hash. */
static struct stun_transaction **bucket_of(struct stun_socket *socket, const uint8_t *id) {
    return &socket->buckets[id[0] % BUCKETS];
}

static struct stun_transaction *find(struct stun_socket *socket, const uint8_t *id) {
    struct stun_transaction *one = *bucket_of(socket, id);
    while (one && memcmp(one->request + 8, id, STUN_ID_SIZE) != 0)
        one = one->next;
    return one;
}

static void on_timer(uv_timer_t *timer);
static void on_readable(uv_poll_t *poll, int status, int events);

/* Watches the socket while something is open, and the clock for the earliest deadline. */
static void arm(struct stun_socket *socket) {
    const struct deadline *first = timers_first(&socket->timers);
    if (!first) {
        uv_timer_stop(&socket->timer);
        uv_poll_stop(&socket->poll);
        return;
    }
    uint64_t now = uv_hrtime();
    uint64_t ms = first->at_ns > now ? (first->at_ns - now + NS_PER_MS - 1) / NS_PER_MS : 0;
    uv_update_time(socket->timer.loop); /* the timer counts from now */
    uv_timer_start(&socket->timer, on_timer, ms, 0);
    if (!uv_is_active((uv_handle_t *)&socket->poll))
        uv_poll_start(&socket->poll, UV_READABLE, on_readable);
}

static void drop(struct stun_transaction *one) {
    timers_remove(&one->socket->timers, &one->deadline);
    *one->link = one->next;
    if (one->next)
        one->next->link = one->link;
    one->socket->open--;
    free(one);
}

void stun_cancel(struct stun_transaction *transaction) {
    struct stun_socket *socket = transaction->socket;
    drop(transaction);
    arm(socket);
}

static void finish(struct stun_transaction *one, int status, struct stun_result *result) {
    stun_cb done = one->done;
    void *arg = one->arg;
    result->requests = one->requests;
    stun_cancel(one);
    done(arg, status, result);
}

static void fail(struct stun_transaction *one, int status) {
    finish(one, status, &(struct stun_result){0});
}

/* --- requests ------------------------------------------------------------------------------ */

/* The first failure may be that of an earlier datagram, which the system tells at the next chance.
 * What does not fit into the system's queues is lost as it might be anywhere else. */
static int send_once(const struct stun_transaction *one) {
    struct sockaddr_storage to;
    socklen_t size = ip_to_sockaddr(&one->question.server.ip, one->question.server.port, &to);
    ssize_t n = -1;
    for (int i = 0; i < 2 && n < 0; i++)
        n = sendto(one->socket->fd, one->request, one->request_size, MSG_DONTWAIT,
                   (struct sockaddr *)&to, size);
    return n >= 0 || errno == EAGAIN || errno == ENOBUFS ? 0 : uv_translate_sys_error(errno);
}

static int set_deadline(struct stun_transaction *one, uint64_t at_ns) {
    return timers_add(&one->socket->timers, &one->deadline,
                      at_ns < one->end_ns ? at_ns : one->end_ns);
}

/* RFC 8489, 6.2.1: each wait is twice the one before; after the last request it is Rm times the
 * RTO. */
static int send_request(struct stun_transaction *one) {
    uint64_t wait_ms = (uint64_t)STUN_RTO_MS << one->requests++;
    if (one->requests == STUN_REQUESTS)
        wait_ms = STUN_RTO_MS * STUN_LAST_WAIT;
    one->sent_ns = uv_hrtime();
    int status = send_once(one);
    if (status == 0)
        status = set_deadline(one, one->question.once ? one->end_ns
                                                      : one->sent_ns + wait_ms * NS_PER_MS);
    return status;
}

static void on_deadline(struct deadline *deadline) {
    struct stun_transaction *one = container_of(deadline, struct stun_transaction, deadline);
    if (one->question.once || one->requests == STUN_REQUESTS || uv_hrtime() >= one->end_ns) {
        fail(one, one->softly);
        return;
    }
    int status = send_request(one);
    if (status != 0)
        fail(one, status);
}

static void on_timer(uv_timer_t *timer) {
    struct stun_socket *socket = container_of(timer, struct stun_socket, timer);
    uint64_t now = uv_hrtime();
    struct deadline *first;
    while (!socket->closed && (first = timers_first(&socket->timers)) && first->at_ns <= now) {
        timers_remove(&socket->timers, first);
        first->passed(first);
    }
    if (!socket->closed)
        arm(socket);
}

int stun_ask(struct stun_socket *socket, const struct stun_question *question, stun_cb done,
             void *arg, struct stun_transaction **out) {
    uint8_t id[STUN_ID_SIZE];
    if (question->server.ip.family != socket->local.ip.family)
        return UV_EAFNOSUPPORT;
    struct stun_transaction *one = socket->open < STUN_OPEN_MAX ? calloc(1, sizeof *one) : NULL;
    if (!one)
        return socket->open < STUN_OPEN_MAX ? UV_ENOMEM : UV_ENOBUFS;
    one->deadline.passed = on_deadline;
    one->socket = socket;
    one->question = *question;
    one->softly = UV_ETIMEDOUT;
    one->done = done;
    one->arg = arg;
    unsigned timeout_ms = question->timeout_ms ? question->timeout_ms : STUN_TIMEOUT_MS;
    one->end_ns = uv_hrtime() + timeout_ms * NS_PER_MS;
    crypto_random(id, sizeof id);
    one->request_size = stun_msg_query(id, question->change, one->request);
    one->link = bucket_of(socket, id);
    one->next = *one->link;
    if (one->next)
        one->next->link = &one->next;
    *one->link = one;
    socket->open++;
    int status = send_request(one);
    if (status != 0)
        drop(one);
    else
        *out = one;
    arm(socket);
    return status;
}

/* --- answers ------------------------------------------------------------------------------- */

int stun_read_answer(const struct stun_msg *answer, struct stun_result *result) {
    result->external = answer->mapped;
    result->other = answer->other;
    result->error = answer->error;
    bool good = answer->class == STUN_SUCCESS && !answer->unknown && answer->mapped.ip.family;
    return good ? 0 : UV_EPROTO;
}

static const struct stun_endpoint *other_of(const struct stun_socket *socket,
                                            const struct stun_endpoint *server) {
    for (unsigned i = 0; i < SERVERS && i < socket->known_count; i++)
        if (same(&socket->known[i].server, server))
            return &socket->known[i].other;
    return NULL;
}

static void remember(struct stun_socket *socket, const struct stun_endpoint *server,
                     const struct stun_endpoint *other) {
    if (other->ip.family == 0 || other_of(socket, server))
        return;
    unsigned place = socket->known_count++ % SERVERS;
    socket->known[place].server = *server;
    socket->known[place].other = *other;
}

/* Whether the answer comes from where it was asked to: RFC 5780, 7.2. */
static bool is_from(const struct stun_transaction *one, const struct stun_endpoint *from) {
    const struct stun_endpoint *asked = &one->question.server;
    const struct stun_endpoint *other = other_of(one->socket, asked);
    bool new_ip = one->question.change & STUN_CHANGE_ADDRESS;
    bool new_port = one->question.change & STUN_CHANGE_PORT;
    if (ip_equal(&from->ip, &asked->ip) == new_ip || (from->port == asked->port) == new_port)
        return false;
    return !other || ((!new_ip || ip_equal(&from->ip, &other->ip)) &&
                      (!new_port || from->port == other->port));
}

static void on_datagram(struct stun_socket *socket, const uint8_t *bytes, size_t length,
                        const struct stun_endpoint *from) {
    struct stun_msg answer;
    if (stun_msg_parse(bytes, length, &answer) != 0 || answer.method != STUN_BINDING ||
        (answer.class != STUN_SUCCESS && answer.class != STUN_ERROR)) {
        socket->stats.garbage++;
        return;
    }
    struct stun_transaction *one = find(socket, answer.id);
    if (!one) {
        socket->stats.strays++;
        return;
    }
    if (answer.class == STUN_ERROR ? !same(from, &one->question.server) : !is_from(one, from)) {
        socket->stats.foreign++;
        return;
    }
    struct stun_result result = {.from = *from, .rtt_us = (uv_hrtime() - one->sent_ns) / 1000};
    int status = stun_read_answer(&answer, &result);
    if (one->question.change == STUN_CHANGE_NONE && status == 0)
        remember(socket, &one->question.server, &result.other);
    finish(one, status, &result);
}

/* --- ICMP ---------------------------------------------------------------------------------- */

/* RFC 1122, 3.2.2.1 and 4.2.3.9: networks and hosts that are not reached now may be so again. */
static bool is_hard(const struct sock_extended_err *error) {
    if (error->ee_origin == SO_EE_ORIGIN_ICMP && error->ee_type == ICMP_DEST_UNREACH)
        switch (error->ee_code) {
        case ICMP_NET_UNREACH:
        case ICMP_HOST_UNREACH:
        case ICMP_FRAG_NEEDED:
        case ICMP_SR_FAILED:
        case ICMP_NET_UNR_TOS:
        case ICMP_HOST_UNR_TOS:
            return false;
        default:
            return true;
        }
    return error->ee_origin == SO_EE_ORIGIN_ICMP6 && error->ee_type == ICMPV6_DEST_UNREACH &&
           error->ee_code != ICMPV6_NOROUTE && error->ee_code != ICMPV6_ADDR_UNREACH;
}

/* `bytes` are those of the datagram that came not through, as far as the error quotes them: without
 * its id the error could be anybody's. */
static void on_error(struct stun_socket *socket, const struct sock_extended_err *error,
                     const uint8_t *bytes, size_t length, const struct stun_endpoint *to) {
    struct stun_transaction *one = length >= STUN_HEADER_SIZE ? find(socket, bytes + 8) : NULL;
    socket->stats.unreachable++;
    if (!one || error->ee_errno == 0 || !same(to, &one->question.server))
        return;
    one->softly = uv_translate_sys_error((int)error->ee_errno);
    if (is_hard(error))
        fail(one, one->softly);
}

static const struct sock_extended_err *error_in(struct msghdr *message) {
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part))
        if ((part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_RECVERR) ||
            (part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_RECVERR))
            return (const void *)CMSG_DATA(part);
    return NULL;
}

/* --- the socket ---------------------------------------------------------------------------- */

/* Takes one datagram or, with MSG_ERRQUEUE, one error. False when there is none. */
static bool receive(struct stun_socket *socket, int flags) {
    uint8_t bytes[ANSWER_SIZE];
    union {
        char bytes[256];
        struct cmsghdr align;
    } control;
    struct sockaddr_storage address = {0};
    struct iovec vector = {bytes, sizeof bytes};
    struct msghdr message = {
        .msg_name = &address,
        .msg_namelen = sizeof address,
        .msg_iov = &vector,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof control,
    };
    struct stun_endpoint place;
    ssize_t n = recvmsg(socket->fd, &message, MSG_DONTWAIT | flags);
    if (n < 0) /* else it is an error of which the queue of errors tells more */
        return errno != EAGAIN;
    ip_from_sockaddr((struct sockaddr *)&address, &place.ip, &place.port);
    if (flags & MSG_ERRQUEUE) {
        const struct sock_extended_err *error = error_in(&message);
        if (error)
            on_error(socket, error, bytes, (size_t)n, &place);
    } else if (message.msg_flags & MSG_TRUNC) {
        socket->stats.garbage++;
    } else {
        on_datagram(socket, bytes, (size_t)n, &place);
    }
    return true;
}

/* libuv stops polling, and says UV_EBADF, when there are errors to be told. */
static void on_readable(uv_poll_t *poll, int status, int events) {
    struct stun_socket *socket = container_of(poll, struct stun_socket, poll);
    (void)status, (void)events;
    for (int i = 0; i < TURN_DATAGRAMS && !socket->closed && receive(socket, MSG_ERRQUEUE); i++)
        ;
    for (int i = 0; i < TURN_DATAGRAMS && !socket->closed && receive(socket, 0); i++)
        ;
    if (!socket->closed)
        arm(socket);
}

static int set_up(int fd, const struct stun_local *local, struct stun_endpoint *out) {
    struct sockaddr_storage address;
    socklen_t size = ip_to_sockaddr(&local->ip, local->port, &address);
    int on = 1;
    int level = local->ip.family == 4 ? IPPROTO_IP : IPPROTO_IPV6;
    if (setsockopt(fd, level, local->ip.family == 4 ? IP_RECVERR : IPV6_RECVERR, &on, sizeof on) ||
        (local->ip.family == 6 && setsockopt(fd, level, IPV6_V6ONLY, &on, sizeof on)) ||
        (local->device && setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, local->device,
                                     (socklen_t)strlen(local->device))) ||
        bind(fd, (struct sockaddr *)&address, size))
        return uv_translate_sys_error(errno);
    size = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &size))
        return uv_translate_sys_error(errno);
    ip_from_sockaddr((struct sockaddr *)&address, &out->ip, &out->port);
    return 0;
}

struct stun_endpoint stun_socket_local(const struct stun_socket *socket) {
    return socket->local;
}

const struct stun_stats *stun_socket_stats(const struct stun_socket *socket) {
    return &socket->stats;
}

static void on_closed(struct stun_socket *socket) {
    if (--socket->handles == 0)
        free(socket);
}

static void on_poll_closed(uv_handle_t *handle) {
    on_closed(container_of(handle, struct stun_socket, poll));
}

static void on_timer_closed(uv_handle_t *handle) {
    on_closed(container_of(handle, struct stun_socket, timer));
}

void stun_socket_close(struct stun_socket *socket) {
    socket->closed = true;
    for (size_t i = 0; i < BUCKETS; i++)
        while (socket->buckets[i])
            drop(socket->buckets[i]);
    timers_free(&socket->timers);
    uv_close((uv_handle_t *)&socket->poll, on_poll_closed);
    uv_close((uv_handle_t *)&socket->timer, on_timer_closed);
    close(socket->fd);
}

static int open_fd(const struct stun_local *local, struct stun_endpoint *bound) {
    int family = local->ip.family == 4 ? AF_INET : AF_INET6;
    int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int status = fd < 0 ? uv_translate_sys_error(errno) : set_up(fd, local, bound);
    if (status != 0 && fd >= 0)
        close(fd);
    return status != 0 ? status : fd;
}

int stun_socket_open(uv_loop_t *loop, const struct stun_local *local, struct stun_socket **out) {
    struct stun_socket *socket = calloc(1, sizeof *socket);
    if (!socket)
        return UV_ENOMEM;
    int status = socket->fd = open_fd(local, &socket->local);
    if (status >= 0 && (status = uv_poll_init(loop, &socket->poll, socket->fd)) != 0)
        close(socket->fd);
    if (status < 0) {
        free(socket);
        return status;
    }
    uv_timer_init(loop, &socket->timer);
    socket->handles = 2;
    *out = socket;
    return 0;
}
