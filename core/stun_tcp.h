/* stun_tcp: a TCP connection to a STUN server, which stays open (RFC 8489, 6.2.2).
 *
 * Provides  struct stun_tcp: connects, asks, and can be asked again, so that its mapping lives
 * Uses      libuv, stream, stun, stun_msg
 * Owns      the connection and a timer
 * Its port can be shared: it is bound with SO_REUSEADDR and SO_REUSEPORT. What the server may send
 * is bounded, in the length of a message and in messages that nobody asked for; time is, by each
 * question's timeout, however slowly bytes come. It keeps the loop alive only while a question is
 * open. The callback contract is stun.h's. */
#ifndef CORE_STUN_TCP_H
#define CORE_STUN_TCP_H

#include "core/stun.h"

#define STUN_TCP_TIMEOUT_MS 39500 /* Ti (RFC 8489, 6.2.2) */
#define STUN_TCP_MESSAGE_MAX 1500 /* of an answer */
#define STUN_TCP_STRAYS_MAX 16    /* messages that are no answer, in the life of a connection */

struct stun_tcp;

/* Connects from `local` (family 0: from anywhere) and asks. `timeout_ms` is for all of it; 0 is
 * STUN_TCP_TIMEOUT_MS. Whatever `done` gets, the connection is the caller's to close: 0,
 * UV_ETIMEDOUT, UV_ECONNREFUSED and its like; UV_ECONNRESET also when the server hangs up;
 * UV_EPROTO when it does not speak STUN, sends too much, or answers with an error. */
int stun_tcp_open(uv_loop_t *loop, const struct stun_local *local,
                  const struct stun_endpoint *server, unsigned timeout_ms, stun_cb done, void *arg,
                  struct stun_tcp **out);
/* Asks again. UV_EBUSY while a question is open; what broke the connection once it is broken. */
int stun_tcp_ask(struct stun_tcp *tcp, unsigned timeout_ms, stun_cb done, void *arg);
/* Asks nothing, but tells when it breaks, as a question would: UV_ETIMEDOUT when it did not within
 * that time. */
int stun_tcp_wait(struct stun_tcp *tcp, unsigned timeout_ms, stun_cb done, void *arg);
/* Takes the open question back, if there is one; what answers it will be passed over. */
void stun_tcp_cancel(struct stun_tcp *tcp);
struct stun_endpoint stun_tcp_local(const struct stun_tcp *tcp); /* once it is connected */
struct stun_endpoint stun_tcp_server(const struct stun_tcp *tcp);
/* Ends it; an open question's callback never comes. */
void stun_tcp_close(struct stun_tcp *tcp);

#endif
