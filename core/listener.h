/* listener: one port on which peers arrive, and a bound on what strangers may cost.
 *
 * Provides  struct listener: pipes that were proven and committed; struct arrival: a peer that was
 *           asked to dial us Uses      libuv, pipe Owns      the listening socket, connections that
 *           have not proven themselves, pipes that nobody has taken yet Connections that have not
 *           finished their handshake are bounded in number and time, finished ones that nobody
 *           takes in number. When there are too many, the oldest of the source that has most goes;
 *           a source is an IPv4 address or an IPv6 /64. Try and notify, as pipe.h says. */
#ifndef CORE_LISTENER_H
#define CORE_LISTENER_H

#include "core/pipe.h"

#define LISTENER_ARRIVALS 64 /* tokens expected at one time */

struct listener_limits {
    unsigned unfinished;  /* connections that have not committed yet; at most and by default 512 */
    unsigned untaken;     /* pipes that wait for listener_accept; at most 512, by default 128 */
    unsigned patience_ms; /* from accept to commit; by default 10000 */
};

struct listener;
struct arrival;

struct listener_stats {
    unsigned unfinished, untaken; /* now */
    unsigned long long accepted, finished, failed, evicted, expired, unexpected;
};

/* Listens on `address`, or with NULL on `port` of every address, IPv6 and IPv4 alike (IPv4 alone
 * where there is no IPv6); port 0 lets the system choose. UV_EADDRINUSE when somebody else has the
 * port. */
int listener_new(uv_loop_t *loop, struct tls_identity *identity, const struct sockaddr *address,
                 uint16_t port, struct listener **out);
void listener_limit(struct listener *listener, const struct listener_limits *limits);
uint16_t listener_port(const struct listener *listener);

/* The next pipe whose key is proven and whose peer has committed, now the caller's; or NULL. */
struct pipe *listener_accept(struct listener *listener);
/* Tells once that listener_accept has something; NULL detaches. */
void listener_on_pipe(struct listener *listener, pipe_cb ready, void *arg);

/* Expects connections that open with a preface of this token (unknown ones are closed without a
 * word). 0, UV_EEXIST, UV_ENOBUFS when too many are expected. */
int listener_expect(struct listener *listener, const uint8_t token[PIPE_TOKEN_SIZE],
                    struct arrival **out);
/* The next connection that came, now the caller's, to be secured as TLS_CLIENT; or NULL. */
struct pipe *arrival_take(struct arrival *arrival);
void arrival_on_pipe(struct arrival *arrival, pipe_cb ready, void *arg);
/* Stops expecting it, closes what was not taken, frees it. Arrivals outlive listener_close, and
 * then get nothing more. */
void arrival_forget(struct arrival *arrival);

void listener_stats(const struct listener *listener, struct listener_stats *out);

/* Closes the port and all that was not taken. The listener is gone with `closed` (or NULL). */
void listener_close(struct listener *listener, pipe_cb closed, void *arg);

#endif
