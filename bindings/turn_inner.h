/* turn_inner: what the files of the turn binding share; for them alone.
 *
 *   turn.c       what is done with a relay; the module
 *   turn_open.c  how one is had, and what goes wrong with servers, in words
 *
 * Provides  struct box, and what its two halves want of each other
 * Uses      core/turn, bindings/wait
 * Owns      the relay, until it is closed */
#ifndef BINDINGS_TURN_INNER_H
#define BINDINGS_TURN_INNER_H

#include "bindings/wait.h"
#include "core/turn.h"

#define TURN_TIMEOUT_S 5.0

struct question;

struct box {           /* its fields lie in a table, its user value */
    struct turn *turn; /* NULL once it is closed */
    struct wait *opener;
    struct wait_link waiters; /* for peers */
    struct question *questions;
    struct turn_outcome outcome; /* of the opening */
    char server[320];            /* "host:port" */
};

/* Pushes an allocation that is none yet. */
struct box *turn_push_box(lua_State *L);
void turn_close_box(struct box *box);

/* Pushes nil, message, code and, when there is one, the server's error; returns how many. */
int turn_push_failure(lua_State *L, const struct box *box, int status,
                      const struct turn_outcome *outcome);

/* open{ip, port, user, password, tls, host, ca, local_ip, family, permit, timeout} -> allocation */
int turn_open_allocation(lua_State *L);

#endif
