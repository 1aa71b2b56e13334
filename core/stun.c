#include "core/stun.h"
#include "core/crypto.h"
#include "core/err.h"
#include "core/loop.h"

#include <stdlib.h>
#include <string.h>

#define ANSWER_SIZE 1500 /* of an answer; longer ones are not what was asked for */

struct stun {
    uv_udp_t udp;
    uv_timer_t retransmit, limit;
    struct ip asked;
    uint16_t asked_port;
    uint8_t request[STUN_HEADER_SIZE];
    uint8_t answer[ANSWER_SIZE];
    uint64_t sent_ns;
    unsigned requests, wait_ms;
    unsigned handles;
    stun_cb done;
    void *arg;
};

static void on_closed(struct stun *stun) {
    if (--stun->handles == 0)
        free(stun);
}

static void on_udp_closed(uv_handle_t *handle) {
    on_closed(container_of(handle, struct stun, udp));
}

static void on_retransmit_closed(uv_handle_t *handle) {
    on_closed(container_of(handle, struct stun, retransmit));
}

static void on_limit_closed(uv_handle_t *handle) {
    on_closed(container_of(handle, struct stun, limit));
}

void stun_cancel(struct stun *stun) {
    uv_close((uv_handle_t *)&stun->udp, on_udp_closed);
    uv_close((uv_handle_t *)&stun->retransmit, on_retransmit_closed);
    uv_close((uv_handle_t *)&stun->limit, on_limit_closed);
}

static void finish(struct stun *stun, int status, const struct stun_msg *answer) {
    struct stun_result result = {.requests = stun->requests};
    struct sockaddr_storage local;
    int size = sizeof local;
    if (answer) {
        result.external = answer->mapped;
        result.external_port = answer->mapped_port;
        result.error = answer->error;
        result.rtt_us = (uv_hrtime() - stun->sent_ns) / 1000;
    }
    if (uv_udp_getsockname(&stun->udp, (struct sockaddr *)&local, &size) == 0)
        ip_from_sockaddr((const struct sockaddr *)&local, &result.local, &result.local_port);
    stun_cancel(stun);
    stun->done(stun->arg, status, &result);
}

static void on_limit(uv_timer_t *timer) {
    finish(container_of(timer, struct stun, limit), UV_ETIMEDOUT, NULL);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer) {
    struct stun *stun = container_of(handle, struct stun, udp);
    (void)suggested;
    *buffer = uv_buf_init((char *)stun->answer, sizeof stun->answer);
}

/* What does not come from the server, or is no answer to this request, is passed over. */
static void on_answer(uv_udp_t *udp, ssize_t n, const uv_buf_t *buffer, const struct sockaddr *from,
                      unsigned flags) {
    struct stun *stun = container_of(udp, struct stun, udp);
    struct stun_msg answer;
    struct ip ip;
    uint16_t port;
    (void)buffer;
    if (n < 0) { /* an ICMP error, which the connected socket reports */
        finish(stun, (int)n, NULL);
        return;
    }
    if (n == 0 || !from || (flags & UV_UDP_PARTIAL))
        return;
    ip_from_sockaddr(from, &ip, &port);
    if (!ip_equal(&ip, &stun->asked) || port != stun->asked_port ||
        stun_msg_parse(stun->answer, (size_t)n, &answer) != 0 || answer.method != 1 ||
        memcmp(answer.id, stun->request + 8, STUN_ID_SIZE) != 0)
        return;
    if (answer.class == STUN_ERROR)
        finish(stun, UV_EPROTO, &answer);
    else if (answer.class == STUN_SUCCESS) /* RFC 8489, 6.3.3 */
        finish(stun, answer.unknown || answer.mapped.family == 0 ? UV_EPROTO : 0, &answer);
}

static int send_request(struct stun *stun);

static void on_retransmit(uv_timer_t *timer) {
    struct stun *stun = container_of(timer, struct stun, retransmit);
    if (stun->requests == STUN_REQUESTS) {
        finish(stun, UV_ETIMEDOUT, NULL);
        return;
    }
    int status = send_request(stun);
    if (status != 0 && status != UV_EAGAIN && status != UV_ENOBUFS)
        finish(stun, status, NULL);
}

/* RFC 8489, 6.2.1: each wait is twice the one before; after the last request it is Rm times the
 * RTO. */
static int send_request(struct stun *stun) {
    uv_buf_t buffer = uv_buf_init((char *)stun->request, sizeof stun->request);
    stun->sent_ns = uv_hrtime();
    int status = uv_udp_try_send(&stun->udp, &buffer, 1, NULL);
    stun->requests++;
    unsigned wait_ms =
        stun->requests == STUN_REQUESTS ? STUN_RTO_MS * STUN_LAST_WAIT : stun->wait_ms;
    stun->wait_ms *= 2;
    uv_timer_start(&stun->retransmit, on_retransmit, wait_ms, 0);
    return status < 0 ? status : 0;
}

static int start(struct stun *stun, const struct sockaddr *server, const struct sockaddr *local,
                 unsigned timeout_ms) {
    int status = local ? uv_udp_bind(&stun->udp, local, 0) : 0;
    if (status == 0)
        status = uv_udp_connect(&stun->udp, server);
    if (status == 0)
        status = uv_udp_recv_start(&stun->udp, on_alloc, on_answer);
    if (status == 0)
        status = send_request(stun);
    if (status == 0)
        status =
            uv_timer_start(&stun->limit, on_limit, timeout_ms ? timeout_ms : STUN_TIMEOUT_MS, 0);
    return status;
}

int stun_lookup(uv_loop_t *loop, const struct sockaddr *server, const struct sockaddr *local,
                unsigned timeout_ms, stun_cb done, void *arg, struct stun **out) {
    uint8_t id[STUN_ID_SIZE];
    struct stun *stun = calloc(1, sizeof *stun);
    if (!stun)
        return UV_ENOMEM;
    int status = uv_udp_init(loop, &stun->udp);
    if (status != 0) {
        free(stun);
        return status;
    }
    uv_timer_init(loop, &stun->retransmit);
    uv_timer_init(loop, &stun->limit);
    stun->handles = 3;
    stun->done = done;
    stun->arg = arg;
    stun->wait_ms = STUN_RTO_MS;
    ip_from_sockaddr(server, &stun->asked, &stun->asked_port);
    crypto_random(id, sizeof id);
    stun_msg_request(id, stun->request);
    uv_update_time(loop); /* the timers count from now, not from when the loop last looked */
    status = start(stun, server, local, timeout_ms);
    if (status != 0) {
        stun_cancel(stun);
        return status;
    }
    *out = stun;
    return 0;
}
