#include "core/ntp.h"
#include "core/crypto.h"
#include "core/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_MS 50 /* for one more sample, at least; else some round trips */
#define PATIENCE_TRIPS 3
#define PRECISION_NS 1000 /* to which we read our clock */
#define SECOND_NS                                                                                  \
    1000000000 /* a packet that lay longer was not stamped by the clock that we read */
#define MS_NS 1000000
#define ANSWER_SIZE 512 /* what is cut off are extension fields */

struct request {
    uint64_t nonce; /* 0 once it was answered */
    int64_t sent_ns;
};

struct ntp {
    uv_poll_t poll;
    uv_timer_t again, limit;
    int fd;
    unsigned handles, wanted, wait_ms;
    struct request requests[NTP_REQUESTS_MAX];
    struct ntp_result result;
    ntp_cb done;
    void *arg;
};

static void on_closed(struct ntp *ntp) {
    if (--ntp->handles == 0)
        free(ntp);
}

static void on_poll_closed(uv_handle_t *handle) {
    on_closed(container_of(handle, struct ntp, poll));
}

static void on_again_closed(uv_handle_t *handle) {
    on_closed(container_of(handle, struct ntp, again));
}

static void on_limit_closed(uv_handle_t *handle) {
    on_closed(container_of(handle, struct ntp, limit));
}

void ntp_cancel(struct ntp *ntp) {
    uv_close((uv_handle_t *)&ntp->poll, on_poll_closed);
    uv_close((uv_handle_t *)&ntp->again, on_again_closed);
    uv_close((uv_handle_t *)&ntp->limit, on_limit_closed);
    close(ntp->fd);
}

/* Whatever ends it, what it has learned by then is an answer. */
static void finish(struct ntp *ntp, int status) {
    ntp_cancel(ntp);
    ntp->done(ntp->arg, ntp->result.samples ? 0 : status, &ntp->result);
}

static void on_limit(uv_timer_t *timer) {
    finish(container_of(timer, struct ntp, limit), UV_ETIMEDOUT);
}

static int send_request(struct ntp *ntp) {
    uint8_t bytes[NTP_SIZE];
    struct request *request = &ntp->requests[ntp->result.requests++];
    do
        crypto_random(&request->nonce, sizeof request->nonce);
    while (request->nonce == 0);
    ntp_msg_request(request->nonce, bytes);
    request->sent_ns = clock_steady_ns();
    if (send(ntp->fd, bytes, sizeof bytes, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno != EAGAIN &&
        errno != ENOBUFS)
        return -errno;
    return 0;
}

/* Sends another request, and sees after so long whether it was answered. */
static void ask_again(struct ntp *ntp, unsigned wait_ms);

static void on_again(uv_timer_t *timer) {
    struct ntp *ntp = container_of(timer, struct ntp, again);
    if (ntp->result.samples)
        finish(ntp, 0);
    else if (ntp->result.requests < NTP_REQUESTS_MAX)
        ask_again(ntp, ntp->wait_ms *= 2);
}

static void ask_again(struct ntp *ntp, unsigned wait_ms) {
    int status = send_request(ntp);
    if (status)
        finish(ntp, status);
    else
        uv_timer_start(&ntp->again, on_again, wait_ms, 0);
}

/* When the packet came, by the steady clock: the kernel's stamp, which is by the machine's clock,
 * tells how long it lay there. */
static int64_t arrival_ns(struct msghdr *header) {
    int64_t steady_ns = clock_steady_ns(), machine_ns = clock_machine_ns();
    for (struct cmsghdr *part = CMSG_FIRSTHDR(header); part; part = CMSG_NXTHDR(header, part)) {
        struct timespec stamp;
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_TIMESTAMPNS)
            continue;
        memcpy(&stamp, CMSG_DATA(part), sizeof stamp);
        int64_t age_ns = machine_ns - (int64_t)stamp.tv_sec * SECOND_NS - stamp.tv_nsec;
        if (age_ns > 0 && age_ns < SECOND_NS)
            steady_ns -= age_ns;
    }
    return steady_ns;
}

static int64_t server_precision_ns(int8_t precision) {
    return precision >= 0 ? SECOND_NS : precision < -30 ? 0 : SECOND_NS >> -precision;
}

/* RFC 5905, 8: offset and delay of the four times; sent and came are by our steady clock. */
static bool take_sample(struct ntp *ntp, const struct ntp_msg *msg, int64_t sent_ns,
                        int64_t came_ns) {
    struct ntp_result *result = &ntp->result;
    int64_t there_ns = msg->receive_ns - sent_ns, back_ns = msg->transmit_ns - came_ns;
    int64_t delay_ns = there_ns - back_ns;
    if (delay_ns < -MS_NS) /* it says that it took longer than we waited */
        return false;
    if (delay_ns < 0)
        delay_ns = 0;
    struct clock_view view = {
        .offset_ns = back_ns + (there_ns - back_ns) / 2,
        .error_ns = delay_ns / 2 + (int64_t)msg->root_delay_us * 1000 / 2 +
                    (int64_t)msg->root_dispersion_us * 1000 + PRECISION_NS +
                    server_precision_ns(msg->precision) +
                    (came_ns - sent_ns) * CLOCK_DRIFT_PPM / 1000000,
    };
    if (result->samples++ == 0 || view.error_ns < result->view.error_ns) {
        result->view = view;
        result->delay_ns = delay_ns;
        result->stratum = msg->stratum;
    }
    return true;
}

static void take_answer(struct ntp *ntp, const uint8_t *bytes, size_t length, int64_t came_ns) {
    struct ntp_msg msg;
    struct request *request = NULL;
    if (ntp_msg_parse(bytes, length, &msg) != 0 || msg.origin == 0)
        return;
    for (unsigned i = 0; i < ntp->result.requests; i++)
        if (ntp->requests[i].nonce == msg.origin)
            request = &ntp->requests[i];
    if (!request)
        return;
    request->nonce = 0;
    ntp->result.worth = ntp_msg_worth(&msg);
    if (ntp->result.worth == NTP_GOOD && !take_sample(ntp, &msg, request->sent_ns, came_ns))
        ntp->result.worth = NTP_NONSENSE;
    memcpy(ntp->result.kiss, msg.kiss, sizeof msg.kiss);
    if (ntp->result.worth != NTP_GOOD)
        finish(ntp, UV_EPROTO);
    else if (ntp->result.samples == ntp->wanted || ntp->result.requests == NTP_REQUESTS_MAX)
        finish(ntp, 0);
    else
        ask_again(ntp, PATIENCE_MS + (unsigned)(ntp->result.delay_ns / MS_NS * PATIENCE_TRIPS));
}

/* One packet a round: what it leads to may end the question. */
static void on_readable(uv_poll_t *poll, int status, int events) {
    struct ntp *ntp = container_of(poll, struct ntp, poll);
    uint8_t bytes[ANSWER_SIZE];
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(struct timespec))];
    struct iovec part = {bytes, sizeof bytes};
    struct msghdr header = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = control,
        .msg_controllen = sizeof control,
    };
    (void)events;
    ssize_t n = recvmsg(ntp->fd, &header, MSG_DONTWAIT); /* also when status tells of an error */
    if (n >= 0)
        take_answer(ntp, bytes, (size_t)n, arrival_ns(&header));
    else if (errno != EAGAIN && errno != EINTR)
        finish(ntp, -errno);
    else if (status)
        finish(ntp, status);
}

static int open_socket(const struct sockaddr *server, int *out) {
    static const int on = 1;
    socklen_t size =
        server->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    int fd = socket(server->sa_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) != 0 ||
        connect(fd, server, size) != 0) {
        int status = -errno;
        close(fd);
        return status;
    }
    *out = fd;
    return 0;
}

int ntp_ask(uv_loop_t *loop, const struct sockaddr *server, unsigned samples, unsigned timeout_ms,
            ntp_cb done, void *arg, struct ntp **out) {
    struct ntp *ntp = calloc(1, sizeof *ntp);
    if (!ntp)
        return UV_ENOMEM;
    int status = open_socket(server, &ntp->fd);
    if (status == 0) {
        status = uv_poll_init(loop, &ntp->poll, ntp->fd);
        if (status)
            close(ntp->fd);
    }
    if (status) {
        free(ntp);
        return status;
    }
    uv_timer_init(loop, &ntp->again);
    uv_timer_init(loop, &ntp->limit);
    ntp->handles = 3;
    ntp->wanted = samples;
    ntp->wait_ms = NTP_WAIT_MS;
    ntp->done = done;
    ntp->arg = arg;
    uv_update_time(loop); /* the timers count from now, not from when the loop last looked */
    status = send_request(ntp);
    if (status == 0)
        status = uv_poll_start(&ntp->poll, UV_READABLE, on_readable);
    if (status) {
        ntp_cancel(ntp);
        return status;
    }
    uv_timer_start(&ntp->again, on_again, ntp->wait_ms, 0);
    uv_timer_start(&ntp->limit, on_limit, timeout_ms, 0);
    *out = ntp;
    return 0;
}
