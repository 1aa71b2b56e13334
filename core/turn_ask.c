/* What is asked over the connection to the server: by when, how it is sent, what answers mean. */
#include "core/crypto.h"
#include "core/err.h"
#include "core/turn_inner.h"

#include <stdlib.h>

#define STALE_NONCE 438
#define UNAUTHENTICATED 401
#define NS_PER_MS 1000000u

/* --- time ---------------------------------------------------------------------------------- */

uint64_t turn_after(unsigned ms) {
    return uv_hrtime() + (uint64_t)ms * NS_PER_MS;
}

static void on_timer(uv_timer_t *timer);

static void arm(struct turn *turn) {
    const struct deadline *first = timers_first(&turn->deadlines);
    if (turn->closed)
        return;
    if (!first) {
        uv_timer_stop(&turn->timer);
        return;
    }
    uint64_t now = uv_hrtime();
    uint64_t ms = first->at_ns > now ? (first->at_ns - now + NS_PER_MS - 1) / NS_PER_MS : 0;
    uv_update_time(turn->loop); /* the timer counts from now */
    uv_timer_start(&turn->timer, on_timer, ms, 0);
}

int turn_set(struct turn *turn, struct deadline *deadline, uint64_t at_ns) {
    timers_remove(&turn->deadlines, deadline);
    int status = timers_add(&turn->deadlines, deadline, at_ns);
    arm(turn);
    return status;
}

void turn_unset(struct turn *turn, struct deadline *deadline) {
    timers_remove(&turn->deadlines, deadline);
    arm(turn);
}

static void on_timer(uv_timer_t *timer) {
    struct turn *turn = container_of(timer, struct turn, timer);
    struct deadline *first;
    while (!turn->closed && (first = timers_first(&turn->deadlines)) &&
           first->at_ns <= uv_hrtime()) {
        timers_remove(&turn->deadlines, first);
        first->passed(first);
    }
    arm(turn);
}

/* Renewals are questions too, that nobody waits for. */
void turn_keep_loop(struct turn *turn) {
    bool wanted = turn->opened || turn->on_peer.call;
    for (const struct turn_question *q = turn->questions; q && !wanted; q = q->next)
        wanted = q->done != NULL;
    if (!turn->control)
        return;
    if (wanted)
        uv_ref((uv_handle_t *)&turn->control->uplink.tcp);
    else
        uv_unref((uv_handle_t *)&turn->control->uplink.tcp);
}

/* --- questions ----------------------------------------------------------------------------- */

static void unlink_question(struct turn_question *question) {
    struct turn *turn = question->turn;
    *question->link = question->next;
    if (question->next)
        question->next->link = question->link;
    turn_unset(turn, &question->deadline);
    if (turn->allocating == question)
        turn->allocating = NULL;
    if (turn->permitting == question)
        turn->permitting = NULL;
    if (question->leg)
        turn_leg_end(question->leg);
    question->leg = NULL;
}

void turn_forget(struct turn_question *question) {
    struct turn *turn = question->turn;
    unlink_question(question);
    free(question);
    turn_keep_loop(turn);
}

void turn_finish(struct turn_question *question, int status, const struct turn_outcome *outcome) {
    struct turn *turn = question->turn;
    struct turn_outcome none = {.fd = -1};
    turn_cb done = question->done;
    void *arg = question->arg;
    none.method = question->request.method;
    unlink_question(question);
    free(question);
    turn_keep_loop(turn);
    if (done)
        done(arg, status, outcome ? outcome : &none);
}

void turn_fail(struct turn_question *question, int status, uint16_t error) {
    struct turn_outcome outcome = {question->request.method, error, -1, {{0}, 0}};
    turn_finish(question, status, &outcome);
}

static void on_question_due(struct deadline *deadline) {
    struct turn_question *question = container_of(deadline, struct turn_question, deadline);
    struct turn *turn = question->turn;
    if (question->done) {
        turn_fail(question, UV_ETIMEDOUT, 0);
    } else { /* a renewal: the server is gone */
        turn_break(turn, UV_ETIMEDOUT, 0, question->request.method);
    }
}

struct turn_question *turn_ask(struct turn *turn, enum turn_method method, turn_cb done,
                               void *arg) {
    struct turn_question *question = calloc(1, sizeof *question);
    if (!question)
        return NULL;
    question->turn = turn;
    question->request = (struct turn_request){.method = method, .peers = question->peers};
    question->deadline.passed = on_question_due;
    question->done = done;
    question->arg = arg;
    question->next = turn->questions;
    question->link = &turn->questions;
    turn->questions = question;
    if (question->next)
        question->next->link = &question->next;
    return question;
}

int turn_send(struct turn_question *question) {
    struct turn *turn = question->turn;
    uint8_t bytes[TURN_REQUEST_MAX];
    crypto_random(question->id, sizeof question->id);
    size_t length = turn_write(&question->request, &turn->login, question->id, bytes);
    question->is_sent = true;
    question->is_signed = turn->login.ready;
    question->tries++;
    return length == 0 ? UV_EINVAL : turn_line_send(turn->control, bytes, length);
}

/* --- answers ------------------------------------------------------------------------------- */

static int status_of(uint16_t error) {
    switch (error) {
    case 300:
        return UV_ELOOP;
    case 401:
    case 441:
        return UV_EACCES;
    case 403:
        return UV_EPERM;
    case 437:
        return UV_ECONNRESET;
    case 440:
    case 443:
        return UV_EAFNOSUPPORT;
    case 442:
        return UV_ENOTSUP;
    case 446:
        return UV_EALREADY;
    case 447:
        return UV_EHOSTUNREACH;
    case 486:
        return UV_EBUSY;
    case 500:
        return UV_EIO;
    case 508:
        return UV_ENOBUFS;
    default:
        return UV_EPROTO;
    }
}

int turn_judge(struct turn *turn, const uint8_t *bytes, const struct turn_msg *answer,
               bool is_signed, unsigned tries, uint16_t *error) {
    const struct stun_msg *stun = &answer->stun;
    *error = 0;
    if (stun->class == STUN_SUCCESS) {
        if (stun->unknown != 0)
            return UV_EPROTO;
        return is_signed && stun_msg_is_by(bytes, stun, turn->login.key, STUN_KEY_SIZE)
                   ? 0
                   : ERR_EFORGED;
    }
    *error = stun->error;
    bool again = (stun->error == STALE_NONCE && tries < TURN_TRIES_MAX) ||
                 (stun->error == UNAUTHENTICATED && !is_signed);
    if (again && turn_login_learn(&turn->login, stun))
        return UV_EAGAIN;
    if (again)
        *error = 0; /* it is not the login that is wrong */
    return again ? UV_EPROTO : status_of(stun->error);
}
