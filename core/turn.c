#include "core/crypto.h"
#include "core/err.h"
#include "core/turn_inner.h"

#include <stdlib.h>
#include <string.h>

#define TRY_ALTERNATE 300
#define STRAYS_PER_S 20 /* messages that answer nothing, before the server is one to leave */
#define ATTEMPTS_PER_S 250
#define BURST 256
#define NS_PER_MS 1000000u
#define BEHIND_MS 2 /* from the Allocate to the CreatePermission behind it */
#define SPARE_S 60  /* an allocation is renewed so long before it is over */

/* --- the end ------------------------------------------------------------------------------- */

/* What is asked ends with it, then who waits for peers, then what is left of peers' connections. */
void turn_break(struct turn *turn, int status, uint16_t error, enum turn_method method) {
    if (turn->closed || turn->state == TURN_OVER)
        return;
    struct turn_outcome outcome = {method, error, -1, {{0}, 0}};
    turn->state = TURN_OVER;
    turn->status = status;
    turn->error = error;
    turn->failed_method = method;
    if (turn->control) {
        turn->reason = turn->control->uplink.reason;
        turn_line_close(turn->control);
    }
    turn->control = NULL;
    turn_unset(turn, &turn->open_due);
    turn_unset(turn, &turn->permit_due);
    turn_unset(turn, &turn->renewal_due);
    turn_cb opened = turn->opened;
    turn->opened = NULL;
    if (opened)
        opened(turn->opened_arg, status, &outcome);
    while (!turn->closed && turn->questions)
        turn_finish(turn->questions, status, &outcome);
    if (!turn->closed)
        turn_legs_end(turn);
    if (!turn->closed)
        notice_fire(&turn->on_peer, status);
}

/* --- renewal ------------------------------------------------------------------------------- */

static void on_renewed(struct turn *turn, const struct turn_question *question, int status,
                       uint16_t error) {
    if (question->request.method == TURN_REFRESH && status != 0)
        turn_break(turn, status, error, TURN_REFRESH);
}

static void renew(struct turn *turn, enum turn_method method) {
    struct turn_question *question = turn_ask(turn, method, NULL, NULL);
    int status =
        question ? turn_set(turn, &question->deadline, turn_after(TURN_PATIENCE_MS)) : UV_ENOMEM;
    if (status == 0) {
        question->request.lifetime_s = turn->facts.lifetime_s;
        question->request.peer_count = turn->permit_count;
        for (size_t i = 0; i < turn->permit_count; i++)
            question->peers[i].ip = turn->permits[i];
        status = turn_send(question);
    }
    if (status != 0)
        turn_break(turn, status, 0, method);
}

static void plan_renewal(struct turn *turn, const struct turn_msg *answer) {
    uint32_t lifetime_s = answer->has_lifetime ? answer->lifetime_s : turn->facts.lifetime_s;
    if (lifetime_s > TURN_LIFETIME_MAX_S)
        lifetime_s = TURN_LIFETIME_MAX_S;
    uint32_t after_s = lifetime_s > 2 * SPARE_S ? lifetime_s - SPARE_S : lifetime_s / 2;
    turn->facts.lifetime_s = lifetime_s;
    if (after_s > TURN_PERMISSION_S)
        after_s = TURN_PERMISSION_S;
    turn_set(turn, &turn->renewal_due, turn_after(after_s > 0 ? after_s * 1000 : 1000));
}

/* Permissions, too, each time: they live shorter than most allocations. */
static void on_renewal_due(struct deadline *deadline) {
    struct turn *turn = container_of(deadline, struct turn, renewal_due);
    renew(turn, TURN_REFRESH);
    if (turn->permit_count > 0 && turn->state == TURN_OPEN)
        renew(turn, TURN_CREATE_PERMISSION);
}

static bool is_permitted(const struct turn *turn, const struct ip *ip) {
    size_t i = 0;
    while (i < turn->permit_count && !ip_equal(&turn->permits[i], ip))
        i++;
    return i < turn->permit_count;
}

static void permitted(struct turn *turn, const struct turn_question *question) {
    for (size_t i = 0; i < question->request.peer_count; i++)
        if (!is_permitted(turn, &question->peers[i].ip) && turn->permit_count < TURN_PEERS_MAX)
            turn->permits[turn->permit_count++] = question->peers[i].ip;
}

/* --- the opening --------------------------------------------------------------------------- */

static void send_permitting(struct turn *turn) {
    turn_unset(turn, &turn->permit_due);
    int status = turn_send(turn->permitting);
    if (status != 0)
        turn_break(turn, status, 0, TURN_CREATE_PERMISSION);
}

static void on_permit_due(struct deadline *deadline) {
    send_permitting(container_of(deadline, struct turn, permit_due));
}

/* The permissions are asked for behind the allocation, without waiting for it: a round trip less.
 * Where servers look logins up meanwhile, the second may overtake the first, and is refused: so it
 * follows a little later, and where that was not enough it is asked once more. */
static void send_opening(struct turn *turn) {
    int status = turn_send(turn->allocating);
    if (status != 0) {
        turn_break(turn, status, 0, TURN_ALLOCATE);
    } else if (turn->permitting && turn->login.ready) {
        turn->permitting->is_sent = false;
        turn_set(turn, &turn->permit_due, turn_after(BEHIND_MS));
    }
}

/* A relay may hand us on to another one, but not into networks that it is not in itself. */
static bool may_lead_to(const struct turn *turn, const struct stun_endpoint *alternate) {
    enum ip_kind from = ip_kind(&turn->place.server.ip), to = ip_kind(&alternate->ip);
    return alternate->ip.family == turn->place.server.ip.family && alternate->port != 0 &&
           (to == IP_GLOBAL || (to == from && to != IP_MULTICAST && to != IP_BROADCAST));
}

static int connect_control(struct turn *turn);

static void redirect(struct turn *turn, const struct stun_endpoint *alternate) {
    turn_line_close(turn->control);
    turn->control = NULL;
    turn->redirected = true;
    turn->place.server = *alternate;
    turn->login.ready = false;
    turn->allocating->tries = 0;
    turn_unset(turn, &turn->permit_due);
    if (turn->permitting)
        turn->permitting->is_sent = false;
    int status = connect_control(turn);
    if (status != 0)
        turn_break(turn, status, 0, TURN_ALLOCATE);
}

static void opened(struct turn *turn) {
    turn_cb done = turn->opened;
    struct turn_outcome outcome = {TURN_ALLOCATE, 0, -1, {{0}, 0}};
    turn->opened = NULL;
    turn->state = TURN_OPEN;
    turn_unset(turn, &turn->open_due);
    turn_keep_loop(turn);
    done(turn->opened_arg, 0, &outcome);
}

static void on_open_due(struct deadline *deadline) {
    turn_break(container_of(deadline, struct turn, open_due), UV_ETIMEDOUT, 0, TURN_ALLOCATE);
}

static void on_allocated(struct turn *turn, const struct turn_msg *answer) {
    turn->facts.relayed = answer->relayed;
    turn->facts.external = answer->stun.mapped;
    turn->facts.server = turn->place.server;
    plan_renewal(turn, answer);
    turn_spare_make(turn);
    turn_forget(turn->allocating);
    if (!turn->permitting)
        opened(turn);
    else if (!turn->permitting->is_sent)
        send_permitting(turn);
}

static void answered_allocate(struct turn *turn, const uint8_t *bytes,
                              const struct turn_msg *answer) {
    uint16_t error;
    const struct turn_question *question = turn->allocating;
    int status = turn_judge(turn, bytes, answer, question->is_signed, question->tries - 1, &error);
    if (status == UV_EAGAIN) {
        send_opening(turn);
    } else if (error == TRY_ALTERNATE && !turn->redirected &&
               may_lead_to(turn, &answer->alternate)) {
        redirect(turn, &answer->alternate);
    } else if (status != 0) {
        turn_break(turn, status, error, TURN_ALLOCATE);
    } else if (answer->relayed.ip.family != question->request.family || answer->relayed.port == 0 ||
               !answer->has_lifetime || answer->lifetime_s == 0) {
        turn_break(turn, UV_EPROTO, 0, TURN_ALLOCATE);
    } else {
        on_allocated(turn, answer);
    }
}

/* --- answers ------------------------------------------------------------------------------- */

static void answered(struct turn *turn, struct turn_question *question, const uint8_t *bytes,
                     const struct turn_msg *answer) {
    enum turn_method method = question->request.method;
    uint16_t error;
    if (question == turn->permitting && turn->allocating) {
        question->is_sent = false; /* it has overtaken the Allocate, and found no allocation */
        return;
    }
    int status = turn_judge(turn, bytes, answer, question->is_signed, question->tries - 1, &error);
    if (status == UV_EAGAIN) {
        status = turn_send(question);
        if (status != 0)
            turn_break(turn, status, 0, method);
        return;
    }
    if (status == 0 && method == TURN_CREATE_PERMISSION)
        permitted(turn, question);
    if (status == 0 && method == TURN_REFRESH)
        plan_renewal(turn, answer);
    if (question == turn->permitting) {
        turn_forget(question);
        if (status == 0)
            opened(turn);
        else
            turn_break(turn, status, error, method);
    } else if (!question->done) {
        on_renewed(turn, question, status, error);
        if (turn->state != TURN_OVER && !turn->closed)
            turn_forget(question);
    } else if (status == 0 && method == TURN_CONNECT) {
        status = answer->has_connection
                     ? turn_leg_start(turn, answer->connection, &question->peers[0], question)
                     : UV_EPROTO;
        if (status != 0)
            turn_fail(question, status, 0);
    } else {
        turn_fail(question, status, error);
    }
}

static void on_message(void *arg, const uint8_t *bytes, size_t length) {
    struct turn *turn = arg;
    struct turn_msg message;
    if (turn_msg_parse(bytes, length, &message) != 0) {
        turn_break(turn, UV_EPROTO, 0, TURN_ALLOCATE);
        return;
    }
    uint64_t now_ms = uv_hrtime() / NS_PER_MS;
    const struct stun_msg *stun = &message.stun;
    if (stun->class == STUN_INDICATION && stun->method == TURN_CONNECTION_ATTEMPT &&
        turn->state == TURN_OPEN) {
        if (!bucket_take(&turn->attempts, now_ms))
            turn_break(turn, UV_EPROTO, 0, TURN_CONNECTION_ATTEMPT);
        else if (!message.has_connection || !is_permitted(turn, &message.peer.ip))
            turn->stats.refused++;
        else
            turn_attempt(turn, &message);
        return;
    }
    struct turn_question *question = turn->questions;
    while (question && (!question->is_sent || memcmp(question->id, stun->id, STUN_ID_SIZE) != 0))
        question = question->next;
    if (question && question->leg)
        question = NULL; /* it was answered before */
    if (question && stun->method == question->request.method &&
        (stun->class == STUN_SUCCESS || stun->class == STUN_ERROR)) {
        if (question == turn->allocating)
            answered_allocate(turn, bytes, &message);
        else
            answered(turn, question, bytes, &message);
        return;
    }
    turn->stats.strays++;
    if (!bucket_take(&turn->strays, now_ms))
        turn_break(turn, UV_EPROTO, 0, TURN_ALLOCATE);
}

/* --- the connection to the server ---------------------------------------------------------- */

static void on_up(void *arg) {
    send_opening(arg);
}

static void on_bytes(void *arg, const uint8_t *bytes, size_t length) {
    (void)arg, (void)bytes, (void)length;
}

static void on_down(void *arg, int status) {
    struct turn *turn = arg;
    turn_break(turn, status, 0, TURN_ALLOCATE);
}

static int connect_control(struct turn *turn) {
    static const struct turn_line_events events = {on_up, on_message, on_bytes, on_down};
    int status = turn_line_open(turn->loop, &turn->place, &events, turn, &turn->control);
    if (status == 0)
        turn_keep_loop(turn);
    return status;
}

/* --- what is offered ------------------------------------------------------------------------ */

static int set_place(struct turn_place *place, const struct turn_options *options) {
    const char *host = options->host ? options->host : "";
    const char *ca_file = options->ca_file ? options->ca_file : "";
    if (strlen(host) >= sizeof place->host || strlen(ca_file) >= sizeof place->ca_file ||
        (options->family != 4 && options->family != 6))
        return UV_EINVAL;
    place->server = options->server;
    place->local = options->local;
    place->tls = options->tls;
    memcpy(place->host, host, strlen(host) + 1);
    memcpy(place->ca_file, ca_file, strlen(ca_file) + 1);
    return 0;
}

static int prepare(struct turn *turn, const struct turn_options *options) {
    int status = set_place(&turn->place, options);
    if (status == 0)
        status = turn_login_init(&turn->login, options->user, options->password);
    if (status == 0 && options->permitted_count > TURN_PEERS_MAX)
        status = UV_ENOBUFS;
    if (status != 0)
        return status;
    turn->allocating = turn_ask(turn, TURN_ALLOCATE, NULL, NULL);
    if (!turn->allocating)
        return UV_ENOMEM;
    turn->allocating->request.family = options->family;
    if (options->permitted_count > 0) {
        turn->permitting = turn_ask(turn, TURN_CREATE_PERMISSION, NULL, NULL);
        if (!turn->permitting)
            return UV_ENOMEM;
        turn->permitting->request.peer_count = options->permitted_count;
        for (size_t i = 0; i < options->permitted_count; i++)
            turn->permitting->peers[i].ip = options->permitted[i];
    }
    status = turn_set(turn, &turn->open_due, turn_after(options->timeout_ms));
    return status != 0 ? status : connect_control(turn);
}

int turn_open(uv_loop_t *loop, const struct turn_options *options, turn_cb done, void *arg,
              struct turn **out) {
    struct turn *turn = calloc(1, sizeof *turn);
    if (!turn)
        return UV_ENOMEM;
    uint64_t now_ms = uv_hrtime() / NS_PER_MS;
    turn->loop = loop;
    turn->opened = done;
    turn->opened_arg = arg;
    turn->open_due.passed = on_open_due;
    turn->permit_due.passed = on_permit_due;
    turn->renewal_due.passed = on_renewal_due;
    turn->strays = bucket_full(STRAYS_PER_S, BURST, now_ms);
    turn->attempts = bucket_full(ATTEMPTS_PER_S, BURST, now_ms);
    uv_timer_init(loop, &turn->timer);
    uv_unref((uv_handle_t *)&turn->timer);
    int status = prepare(turn, options);
    if (status != 0) {
        turn_close(turn);
        return status;
    }
    *out = turn;
    return 0;
}

struct turn_facts turn_facts(const struct turn *turn) {
    return turn->facts;
}

struct turn_stats turn_stats(const struct turn *turn) {
    return turn->stats;
}

const char *turn_reason(const struct turn *turn) {
    return turn->reason;
}

int turn_status(const struct turn *turn, uint16_t *error) {
    *error = turn->error;
    return turn->status;
}

/* Sends a question of a caller's. */
static int ask(struct turn *turn, struct turn_question *question, unsigned timeout_ms,
               struct turn_question **out) {
    int status = turn_set(turn, &question->deadline, turn_after(timeout_ms));
    if (status == 0)
        status = turn_send(question);
    if (status != 0) {
        turn_forget(question);
        return status;
    }
    turn_keep_loop(turn);
    *out = question;
    return 0;
}

int turn_permit(struct turn *turn, const struct ip *ips, size_t count, unsigned timeout_ms,
                turn_cb done, void *arg, struct turn_question **out) {
    size_t more = 0;
    if (turn->state != TURN_OPEN)
        return turn->status ? turn->status : UV_EBUSY;
    for (size_t i = 0; i < count; i++) {
        if (ips[i].family != turn->facts.relayed.ip.family)
            return UV_EAFNOSUPPORT;
        more += !is_permitted(turn, &ips[i]);
    }
    if (count > TURN_PEERS_MAX || turn->permit_count + more > TURN_PEERS_MAX)
        return UV_ENOBUFS;
    struct turn_question *question = turn_ask(turn, TURN_CREATE_PERMISSION, done, arg);
    if (!question)
        return UV_ENOMEM;
    question->request.peer_count = count;
    for (size_t i = 0; i < count; i++)
        question->peers[i].ip = ips[i];
    return ask(turn, question, timeout_ms, out);
}

int turn_connect(struct turn *turn, const struct stun_endpoint *peer, unsigned timeout_ms,
                 turn_cb done, void *arg, struct turn_question **out) {
    if (turn->state != TURN_OPEN)
        return turn->status ? turn->status : UV_EBUSY;
    struct turn_question *question = turn_ask(turn, TURN_CONNECT, done, arg);
    if (!question)
        return UV_ENOMEM;
    question->request.peer_count = 1;
    question->peers[0] = *peer;
    return ask(turn, question, timeout_ms, out);
}

static void on_timer_closed(uv_handle_t *handle) {
    struct turn *turn = container_of((uv_timer_t *)handle, struct turn, timer);
    timers_free(&turn->deadlines);
    free(turn);
}

/* The server is told, so that it need not find out; it is not waited for. */
static void say_goodbye(struct turn *turn) {
    uint8_t id[STUN_ID_SIZE], bytes[TURN_REQUEST_MAX];
    struct turn_request request = {.method = TURN_REFRESH, .lifetime_s = 0};
    crypto_random(id, sizeof id);
    turn_line_send(turn->control, bytes, turn_write(&request, &turn->login, id, bytes));
}

void turn_close(struct turn *turn) {
    if (turn->closed)
        return;
    turn->on_peer = (struct notice){0};
    if (turn->control && turn->facts.relayed.ip.family != 0)
        say_goodbye(turn);
    if (turn->control)
        turn_line_close(turn->control);
    turn->control = NULL;
    while (turn->questions)
        turn_forget(turn->questions);
    turn_legs_end(turn);
    turn->closed = true;
    turn_login_wipe(&turn->login);
    uv_close((uv_handle_t *)&turn->timer, on_timer_closed);
}
