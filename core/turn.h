/* turn: a TCP relay at a TURN server (RFC 8656), and the connections that go through it (RFC 6062).
 *
 * Provides  struct turn: an allocation, which is kept alive until it is closed
 * Uses      uplink, stream, timers, bucket, turn_msg
 * Owns      a connection to the server, by TCP or TLS; one more, made ahead, so that the first peer
 *           need not wait for it; peers' connections that nobody has taken yet
 *
 * Whoever may (turn_permit) connects to the relayed address: each of them comes here by a
 * connection of its own to the server, which carries nothing but the peer's bytes once the server
 * has been told which peer it is for. It is handed out as a descriptor; with TLS, as one end of a
 * pair of sockets whose other end a pump serves on the loop, as long as either side lives. When the
 * allocation ends, servers end its connections.
 *
 * What the server sends is bounded, in length and in messages a second; time is, by a deadline for
 * each question; so are peers' connections. The loop is kept alive only while a question is open,
 * or peers are waited for. Callbacks: a call that returns 0 calls back exactly once, later; any
 * other return, turn_forget and turn_close mean that the callback never comes. */
#ifndef CORE_TURN_H
#define CORE_TURN_H

#include "core/notice.h"
#include "core/turn_msg.h"
#include <uv.h>

#define TURN_READY_MAX 8          /* peers' connections that nobody has taken yet */
#define TURN_PERMISSION_S 240     /* permissions, which last 300 s, are renewed after this */
#define TURN_LIFETIME_MAX_S 86400 /* longer ones count as this */
#define TURN_PATIENCE_MS 10000    /* for what nobody outside waits for: renewals, peers */

struct turn;
struct turn_question;

struct turn_options {
    struct stun_endpoint server;
    bool tls;
    const char *host;    /* what the certificate must be for; unused without TLS */
    const char *ca_file; /* PEM, trusted besides what the system trusts; NULL for none */
    struct ip local;     /* to connect from; family 0 for any */
    const char *user, *password;
    uint8_t family;             /* of the relayed address, 4 or 6 */
    const struct ip *permitted; /* who may connect to it: asked for together with it */
    size_t permitted_count;
    unsigned timeout_ms;
};

/* Why a question failed, beside the status: what was asked, and the error that the server answered
 * with, or 0. Of a question for a connection that did not fail: the connection, which is the
 * callback's to close, and whom it leads to. */
struct turn_outcome {
    enum turn_method method;
    uint16_t error;
    int fd;
    struct stun_endpoint peer;
};

/* Of the server's errors: UV_EACCES (401, 441), UV_EPERM (403), UV_ENOTSUP (442), UV_EAFNOSUPPORT
 * (440, 443), UV_EALREADY (446), UV_EHOSTUNREACH (447), UV_EBUSY (486), UV_ENOBUFS (508),
 * UV_ECONNRESET (437: it has forgotten the allocation), UV_ELOOP (300, the second time or to where
 * it may not lead), UV_EIO (500), UV_EPROTO (others). Of its answers: UV_EPROTO (none of use),
 * ERR_EFORGED (not made by who knows the password). Of the connection: UV_ETIMEDOUT,
 * UV_ECONNREFUSED and its like, UV_ECONNRESET, ERR_ETLS. */
typedef void (*turn_cb)(void *arg, int status, const struct turn_outcome *outcome);

struct turn_facts {
    struct stun_endpoint relayed;  /* where peers connect to */
    struct stun_endpoint external; /* where the server sees us */
    struct stun_endpoint server;   /* the one that it is at, perhaps after a redirection */
    uint32_t lifetime_s;           /* which is renewed before it is over */
};

struct turn_stats {
    uint64_t strays;  /* messages that answer nothing */
    uint64_t refused; /* peers whose connections were not taken: too many, or not permitted */
    uint64_t failed;  /* peers whose connections were lost on the way here */
};

/* Connects and allocates. Whatever `done` gets, the allocation is the caller's to close. Beside
 * what callbacks get: UV_EINVAL for a login or a host that cannot be. */
int turn_open(uv_loop_t *loop, const struct turn_options *options, turn_cb done, void *arg,
              struct turn **out);
struct turn_facts turn_facts(const struct turn *turn);
struct turn_stats turn_stats(const struct turn *turn);
const char *turn_reason(const struct turn *turn); /* static text: why TLS failed, or NULL */

/* 0 while it lives; else why it ended, and with which error of the server's. */
int turn_status(const struct turn *turn, uint16_t *error);

/* Lets these addresses connect. UV_ENOBUFS when there are more than TURN_PEERS_MAX in all,
 * UV_EAFNOSUPPORT when one is of another family than the relay. */
int turn_permit(struct turn *turn, const struct ip *ips, size_t count, unsigned timeout_ms,
                turn_cb done, void *arg, struct turn_question **out);
/* Connects from the relayed address to this peer, whose address must be permitted. */
int turn_connect(struct turn *turn, const struct stun_endpoint *peer, unsigned timeout_ms,
                 turn_cb done, void *arg, struct turn_question **out);
/* Takes a question back. Not once its callback has come. */
void turn_forget(struct turn_question *question);

/* The connection of a peer that has come, which is the caller's to close; else UV_EAGAIN, or why
 * none will come any more. */
int turn_accept(struct turn *turn, struct stun_endpoint *peer);
/* Calls once, when turn_accept has something else to say than UV_EAGAIN; NULL: not any more. */
void turn_on_peer(struct turn *turn, notice_cb call, void *arg);

/* Ends it. */
void turn_close(struct turn *turn);

/* Ends the pumps of this thread: whoever uses what they serve finds it closed. */
void turn_pumps_end(void);

#endif
