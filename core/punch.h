/* punch: opens holes through routers: connects from chosen ports to chosen ports at chosen times,
 * and listens meanwhile (TCP hole punching: RFC 5128, 3.4 and 3.6; simultaneous open: RFC 9293,
 * 3.5).
 *
 * Provides  struct puncher: sockets toward one remote address, and a thread of their own, so that
 *           a busy loop does not delay them
 * Uses      ip, err, nic, notice, timers, libuv
 * Owns      the thread, its sockets and listeners, and connections until they are taken
 *
 * It decides nothing: where, when and how often is the caller's plan. Every socket is bound with
 * SO_REUSEADDR and SO_REUSEPORT, so that a port can have many, and a STUN connection beside them.
 *
 *   shot      one connect(); a socket for it is made ahead, so that a burst goes out in one go
 *   refused   a RST has come: with `revive`, the shot is sent anew from its port, by a new socket
 *   opener    a shot with a low TTL, which opens our router and is to die before theirs. Its TTL
 *             is set back right after connect(), for the SYN-ACK of a simultaneous open. What ICMP
 *             says of a packet whose TTL ran out does not reach an IPv4 socket that asks for
 *             segments with a TTL of 2 or more (IP_MINTTL: the kernel looks at the quoted packet's
 *             TTL), so the opener lives on.
 *   ICMP      ends a connect(). A listener takes its port over: it gets the SYN that finds no
 *             socket in SYN-SENT.
 *
 * All that others can cause is bounded: connections that wait to be taken, what is accepted in one
 * turn, events, answers to refusals. */
#ifndef CORE_PUNCH_H
#define CORE_PUNCH_H

#include "core/ip.h"
#include "core/notice.h"

#include <uv.h>

#define PUNCH_SOCKETS_MAX 4096 /* at a time */
#define PUNCH_SYNS_MAX 4096    /* in the life of a puncher */
#define PUNCH_HOLES_MAX 32     /* connections that wait to be taken; further ones are closed */
#define PUNCH_FAILURES_MAX 12
#define PUNCH_SENT_LISTED 256    /* events that are listed: SYNs, */
#define PUNCH_TROUBLE_LISTED 192 /* what went wrong, */
#define PUNCH_HOLES_LISTED 64    /* and what connected */
#define PUNCH_EVENTS_MAX (PUNCH_SENT_LISTED + PUNCH_TROUBLE_LISTED + PUNCH_HOLES_LISTED)

struct puncher;

struct punch_options {
    struct ip remote;
    struct ip local;    /* or of family 0: what the system would send from */
    const char *device; /* by name; NULL for any (SO_BINDTODEVICE) */
    unsigned sockets;   /* at a time, at most; 0: PUNCH_SOCKETS_MAX */
    unsigned syns;      /* in all, those sent anew included; 0: PUNCH_SYNS_MAX. What the system
                           repeats after a second, for want of an answer, is not counted. */
};

struct punch_shot {
    uint64_t after_ns;                /* the volley's time */
    uint16_t local_port, remote_port; /* a local port of 0: any */
    uint8_t ttl;                      /* 0: the system's */
    bool listens;                     /* a listener on the local port, made ahead */
};

struct punch_volley {
    uint64_t at_ns; /* by uv_hrtime; 0: now. What has passed by then is sent at once, in order. */
    unsigned revive;
    uint64_t revive_gap_ns; /* from one SYN to the next, at least */
    const struct punch_shot *shots;
    size_t count;
};

struct punch_hole {
    int fd; /* the taker's */
    bool accepted;
    struct ip local, remote;
    uint16_t local_port, remote_port;
    uint64_t at_ns;
};

/* What can happen; the names are Lua's too. */
#define PUNCH_KINDS(X)                                                                             \
    X(sent)      /* a SYN */                                                                       \
    X(refused)   /* by RST, or by the ICMP error that means the same */                            \
    X(icmp)      /* another ICMP error has ended a connect() */                                    \
    X(failed)    /* the system would not, or gave up */                                            \
    X(connected) /* a hole */                                                                      \
    X(accepted)  /* a hole, by a listener */                                                       \
    X(self)      /* a connection to ourselves: closed */                                           \
    X(stranger)  /* a connection from another address: closed */                                   \
    X(crowded)   /* one more than PUNCH_HOLES_MAX: closed */

enum punch_kind {
#define X(name) PUNCH_##name,
    PUNCH_KINDS(X)
#undef X
        PUNCH_KIND_COUNT
};

struct punch_event {
    uint64_t at_ns;
    enum punch_kind kind;
    int status; /* of what ended a shot; else 0 */
    uint16_t local_port, remote_port;
};

struct punch_seen {
    uint64_t begun_ns; /* the time of the first volley; before it, of punch_open */
    unsigned counts[PUNCH_KIND_COUNT];
    uint64_t first_ns[PUNCH_KIND_COUNT]; /* 0: never */
    unsigned revived;                    /* of the SYNs, how many were sent anew */
    unsigned withheld;                   /* revivals that were over the limit of SYNs */
    unsigned alive;                      /* shots that may yet connect, sent or not */
    unsigned listening;
    struct {
        int status;
        unsigned count;
    } failures[PUNCH_FAILURES_MAX]; /* what ended shots, up to a status of 0 */
    unsigned event_count, unlisted; /* unlisted: those for which there was no room */
    struct punch_event events[PUNCH_EVENTS_MAX];
};

/* Nothing is sent. What the system said: UV_ENETUNREACH and its like when there is no way to the
 * remote address, UV_EADDRNOTAVAIL, UV_ENODEV; UV_EAFNOSUPPORT when the families differ; UV_EINVAL
 * for a remote address that no connection can have (multicast, broadcast, unspecified). */
int punch_open(uv_loop_t *loop, const struct punch_options *options, struct puncher **out);

/* Listens on a port of the local address (0: any); `bound` gets it, and may be NULL. A port that
 * has a listener of ours already gets no second. What the system said; UV_EMFILE over the limit. */
int punch_listen(struct puncher *puncher, uint16_t port, uint16_t *bound);

/* Adds a volley. UV_ENOBUFS when it has more shots than SYNs are left; UV_EMFILE when the system
 * does not allow so many descriptors (this process's soft limit is raised where need be); UV_EINVAL
 * for a remote port of 0; UV_ENOMEM. */
int punch_fire(struct puncher *puncher, const struct punch_volley *volley);

/* Sends nothing more: shots that wait for their time are dropped, refused ones not sent anew. What
 * connects goes on, and so do listeners. */
void punch_halt(struct puncher *puncher);

/* Calls back once, later, when punch_next has something else to say than UV_EAGAIN, and keeps the
 * loop alive until then. A call of NULL takes that back. */
void punch_on_news(struct puncher *puncher, notice_cb call, void *arg);

/* 0 and the next connection; UV_EAGAIN when there is none yet; when none can come any more (shots
 * were fired, all have ended, nothing listens) the status that most of them ended with. */
int punch_next(struct puncher *puncher, struct punch_hole *out);

void punch_seen(struct puncher *puncher, struct punch_seen *out);

/* Ends it: when this returns, nothing more is sent or accepted. It waits for the thread to come to
 * that, which takes less than a millisecond on a machine that has the time; where there are many
 * sockets, the thread closes them afterwards. */
void punch_close(struct puncher *puncher);

#endif
