/* ntp: asks one NTP server over UDP what time it is (RFC 5905, as a client that serves nobody).
 *
 * Provides  struct ntp, one question; to ask several servers side by side, ask several
 * Uses      libuv, ntp_msg, clock, crypto's randomness
 * Owns      its socket, of a port of its own (RFC 9109), and its timers
 * An answer counts only when it comes from the server and repeats the nonce of a request that was
 * not answered yet. A request without an answer is sent again after NTP_WAIT_MS, then after twice
 * that; each has a nonce of its own, so that late answers are of use. Once a server has answered,
 * it is asked again at once, up to `samples` times: of these the one that took least time counts.
 * When it answers no more, as servers do that limit their rate, what it said suffices. */
#ifndef CORE_NTP_H
#define CORE_NTP_H

#include "core/clock.h"
#include "core/ntp_msg.h"

#include <sys/socket.h>
#include <uv.h>

#define NTP_WAIT_MS 250     /* until the first request is sent again, if nothing came */
#define NTP_REQUESTS_MAX 16 /* to a server, in all */
#define NTP_SAMPLES_MAX 8

struct ntp;

struct ntp_result {
    struct clock_view view;
    int64_t delay_ns; /* there and back, without the server's own time */
    unsigned samples, requests;
    uint8_t stratum;
    enum ntp_worth worth; /* with UV_EPROTO: what was wrong */
    char kiss[NTP_KISS_SIZE];
};

typedef void (*ntp_cb)(void *arg, int status, const struct ntp_result *result);

/* `samples` is 1 to NTP_SAMPLES_MAX. `done` gets 0, UV_ETIMEDOUT, UV_ECONNREFUSED and its like from
 * ICMP, or UV_EPROTO: the server answers, but does not say the time. It comes once, never from
 * inside the call, and the question is freed after it; non-zero: it never comes. */
int ntp_ask(uv_loop_t *loop, const struct sockaddr *server, unsigned samples, unsigned timeout_ms,
            ntp_cb done, void *arg, struct ntp **out);

/* Ends it; the callback never comes. Not to be called once it has come. */
void ntp_cancel(struct ntp *ntp);

#endif
