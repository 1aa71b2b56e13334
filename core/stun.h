/* stun: asks STUN servers over UDP which address they see us come from (RFC 8489, RFC 5780).
 *
 * Provides  struct stun_socket: one UDP socket; struct stun_transaction: a question on it, one of
 *           many to any number of servers
 * Uses      libuv, timers, stun_msg
 * Owns      the socket, one timer, the transactions that are open
 * An answer counts only with a transaction's id, and from where it was asked to come from; all else
 * is passed over and counted. Requests are sent again as RFC 8489, 6.2.1 says, but sooner. The
 * socket is looked at only while a transaction is open, and keeps the loop alive only then.
 * Callbacks: a call that returns 0 calls back exactly once, later; any other return, and
 * stun_cancel, mean that the callback never comes. */
#ifndef CORE_STUN_H
#define CORE_STUN_H

#include "core/stun_msg.h"
#include <uv.h>

#define STUN_RTO_MS 100      /* RFC 8489, 6.2.1 says 500; who waits for a pipe asks sooner */
#define STUN_REQUESTS 7      /* Rc; each wait is twice the one before */
#define STUN_LAST_WAIT 16    /* Rm: RTOs after the last request */
#define STUN_TIMEOUT_MS 7900 /* what these add up to */
#define STUN_OPEN_MAX 1024   /* transactions of one socket */

struct stun_socket;
struct stun_transaction;

struct stun_local {     /* what a socket is bound to */
    struct ip ip;       /* its family is the socket's */
    uint16_t port;      /* or 0 */
    const char *device; /* by name; NULL for any (SO_BINDTODEVICE) */
};

struct stun_question {
    struct stun_endpoint server;
    enum stun_change change;
    bool once;           /* nothing is sent again */
    unsigned timeout_ms; /* 0 is STUN_TIMEOUT_MS, and more counts as that unless `once` */
};

struct stun_result {
    struct stun_endpoint external; /* as the server sees us */
    struct stun_endpoint from;     /* who answered */
    struct stun_endpoint other;    /* from where it can answer else, if it has said so */
    uint16_t error;                /* the server's error code with UV_EPROTO, else 0 */
    unsigned requests;             /* how many were sent */
    uint64_t rtt_us;               /* from the last request to the answer */
};

struct stun_stats {       /* of what came to the socket, and was no answer */
    uint64_t garbage;     /* no STUN, or no answer to a Binding request */
    uint64_t strays;      /* no open transaction has that id: copies, late ones, guesses */
    uint64_t foreign;     /* from another place than was asked to answer */
    uint64_t unreachable; /* ICMP errors */
};

/* UV_ETIMEDOUT; UV_ECONNREFUSED and its like when ICMP says that nobody is there (hard errors, RFC
 * 1122, 4.2.3.9: soft ones only take the place of UV_ETIMEDOUT); UV_EPROTO when the server answered
 * with an error, or without an address. */
typedef void (*stun_cb)(void *arg, int status, const struct stun_result *result);

/* Opens a socket. What the system said, as UV_EADDRINUSE, UV_EADDRNOTAVAIL, UV_ENODEV. */
int stun_socket_open(uv_loop_t *loop, const struct stun_local *local, struct stun_socket **out);
struct stun_endpoint stun_socket_local(const struct stun_socket *socket);
const struct stun_stats *stun_socket_stats(const struct stun_socket *socket);
/* Cancels what is open, and frees the socket. */
void stun_socket_close(struct stun_socket *socket);

/* Asks. With a change the answer must come from the other address, port or both that the server has
 * announced on this socket; before it has, from any that are as other as was asked for. UV_ENOBUFS
 * when too many are open, UV_EAFNOSUPPORT when the server is of the other family, and what the
 * system said of the first request. */
int stun_ask(struct stun_socket *socket, const struct stun_question *question, stun_cb done,
             void *arg, struct stun_transaction **out);
/* Not once the callback has come. */
void stun_cancel(struct stun_transaction *transaction);

/* What an answer to a Binding request says: 0 or UV_EPROTO (RFC 8489, 6.3.3 and 6.3.4). */
int stun_read_answer(const struct stun_msg *answer, struct stun_result *result);

#endif
