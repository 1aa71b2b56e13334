/* turn_inner: what the parts of turn know of each other. */
#ifndef CORE_TURN_INNER_H
#define CORE_TURN_INNER_H

#include "core/bucket.h"
#include "core/loop.h"
#include "core/timers.h"
#include "core/turn.h"
#include "core/uplink.h"

#define TURN_TRIES_MAX 3 /* of a question whose nonce is stale each time */

/* --- turn_line: a connection to the server, on which messages come -------------------------- */

struct turn_line;

struct turn_line_events { /* none comes after `down`, and none after turn_line_close */
    void (*up)(void *arg);
    void (*message)(void *arg, const uint8_t *bytes, size_t length);
    void (*bytes)(void *arg, const uint8_t *bytes, size_t length); /* once it is raw */
    void (*down)(void *arg, int status);
};

struct turn_place { /* where the server is, and how to speak to it */
    struct stun_endpoint server;
    struct ip local;
    bool tls;
    char host[256], ca_file[4096];
};

struct turn_line {
    struct uplink uplink;
    const struct turn_line_events *events;
    void *arg;
    bool raw; /* what comes are bytes of a peer; no byte of these is read before, without TLS */
    bool closed;
    size_t filled, size; /* of the message that comes */
    uint8_t input[TURN_MESSAGE_MAX];
};

int turn_line_open(uv_loop_t *loop, const struct turn_place *place,
                   const struct turn_line_events *events, void *arg, struct turn_line **out);
void turn_line_expect(struct turn_line *line, const struct turn_line_events *events, void *arg);
int turn_line_send(struct turn_line *line, const void *bytes, size_t length);
void turn_line_close(struct turn_line *line);

/* --- turn_pump: bytes between a line with TLS and one end of a pair of sockets --------------- */

/* Takes the line, and gives the other end. On failure the line is still the caller's. */
int turn_pump_start(uv_loop_t *loop, struct turn_line *line, int *fd);

/* --- turn: the allocation -------------------------------------------------------------------- */

struct turn_leg;

struct turn_question {
    struct turn_question *next, **link;
    struct turn *turn;
    struct turn_request request;
    struct stun_endpoint peers[TURN_PEERS_MAX];
    uint8_t id[STUN_ID_SIZE];
    bool is_sent, is_signed;
    unsigned tries;
    struct deadline deadline;
    struct turn_leg *leg; /* of a Connect that the server has granted */
    turn_cb done;
    void *arg;
};

struct turn_arrival {
    int fd;
    struct stun_endpoint peer;
};

enum turn_state { TURN_OPENING, TURN_OPEN, TURN_OVER };

struct turn {
    uv_loop_t *loop;
    uv_timer_t timer;
    struct timers deadlines;
    struct turn_place place;
    struct turn_login login;
    struct turn_line *control;
    enum turn_state state;
    bool closed, redirected;
    int status;     /* why it is over, */
    uint16_t error; /* with which error of the server's, */
    enum turn_method failed_method;
    const char *reason; /* and why TLS failed */

    struct turn_facts facts;
    struct turn_stats stats;
    struct bucket strays, attempts;

    struct turn_question *questions;
    struct turn_question *allocating, *permitting; /* of the opening; NULL when they are answered */
    turn_cb opened;
    void *opened_arg;
    struct deadline open_due, permit_due, renewal_due;

    struct ip permits[TURN_PEERS_MAX];
    size_t permit_count;

    struct turn_line *spare; /* NULL when it is used, or was lost */
    bool spare_up;
    struct turn_leg *legs;
    struct turn_arrival ready[TURN_READY_MAX];
    size_t coming, ready_count; /* peers' connections: on their way here, and here */
    struct notice on_peer;
};

uint64_t turn_after(unsigned ms); /* ns of uv_hrtime */
int turn_set(struct turn *turn, struct deadline *deadline, uint64_t at_ns);
void turn_unset(struct turn *turn, struct deadline *deadline);
void turn_keep_loop(struct turn *turn); /* alive, or not, as it is with questions and waiters */
void turn_break(struct turn *turn, int status, uint16_t error, enum turn_method method);

/* A question that is not sent yet; without `done` nobody waits for it. */
struct turn_question *turn_ask(struct turn *turn, enum turn_method method, turn_cb done, void *arg);
int turn_send(struct turn_question *question); /* or sends it anew */
void turn_fail(struct turn_question *question, int status, uint16_t error);
/* Ends a question: `outcome` says what for, or NULL. */
void turn_finish(struct turn_question *question, int status, const struct turn_outcome *outcome);

/* What an answer to a signed request says: 0, UV_EAGAIN (to be sent anew), or why not; `error` is
 * the server's. */
int turn_judge(struct turn *turn, const uint8_t *bytes, const struct turn_msg *answer,
               bool is_signed, unsigned tries, uint16_t *error);

/* --- turn_leg: a peer's connection on its way here ------------------------------------------- */

int turn_leg_start(struct turn *turn, uint32_t connection, const struct stun_endpoint *peer,
                   struct turn_question *question);
void turn_leg_end(struct turn_leg *leg);
void turn_attempt(struct turn *turn, const struct turn_msg *message); /* a ConnectionAttempt */
void turn_spare_make(struct turn *turn);
void turn_legs_end(struct turn *turn); /* and what is ready, and the spare one */

#endif
