/* stun: asks one STUN server over UDP which address it sees us come from (RFC 8489).
 *
 * Provides  struct stun, one look-up
 * Uses      libuv, stun_msg
 * Owns      its socket and its timer
 * An answer counts only when it comes from the address that was asked and carries the transaction
 * id. Requests are sent again as RFC 8489, 6.2.1 says, until the timeout. The callback contract is
 * pipe.h's. */
#ifndef CORE_STUN_H
#define CORE_STUN_H

#include "core/stun_msg.h"
#include <uv.h>

#define STUN_RTO_MS 500       /* RFC 8489, 6.2.1: at least 500 ms, doubled each time */
#define STUN_REQUESTS 7       /* Rc */
#define STUN_LAST_WAIT 16     /* Rm: RTOs after the last request */
#define STUN_TIMEOUT_MS 39500 /* what these add up to */

struct stun;

struct stun_result {
    struct ip external, local;
    uint16_t external_port, local_port;
    uint16_t error;    /* the server's error code with ERR_EREFUSED-like statuses, else 0 */
    unsigned requests; /* how many were sent */
    uint64_t rtt_us;   /* from the last request to the answer */
};

typedef void (*stun_cb)(void *arg, int status, const struct stun_result *result);

/* Asks `server` from `local` (or NULL for any port). `timeout_ms` 0 is STUN_TIMEOUT_MS. `done` gets
 * 0, UV_ETIMEDOUT, UV_ECONNREFUSED and its like from ICMP, or UV_EPROTO when the server answered
 * with an error; the look-up is freed after it. */
int stun_lookup(uv_loop_t *loop, const struct sockaddr *server, const struct sockaddr *local,
                unsigned timeout_ms, stun_cb done, void *arg, struct stun **out);
/* Ends it; the callback never comes. Not to be called once it has come. */
void stun_cancel(struct stun *stun);

#endif
