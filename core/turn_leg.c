/* Peers' connections on their way here: a connection to the server, which is told for which peer it
 * is (ConnectionBind; RFC 6062, 4.3 and 4.4), and is the peer's from its answer on. */
#include "core/crypto.h"
#include "core/err.h"
#include "core/turn_inner.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct turn_leg {
    struct turn_leg *next, **link;
    struct turn *turn;
    struct turn_line *line;
    uint32_t connection;
    struct stun_endpoint peer;
    struct turn_question *question; /* that asked for it; NULL when the peer has come by itself */
    uint8_t id[STUN_ID_SIZE];
    unsigned tries;
    struct deadline deadline;
};

void turn_leg_end(struct turn_leg *leg) {
    struct turn *turn = leg->turn;
    *leg->link = leg->next;
    if (leg->next)
        leg->next->link = leg->link;
    turn_unset(turn, &leg->deadline);
    if (leg->line)
        turn_line_close(leg->line);
    if (!leg->question)
        turn->coming--;
    else
        leg->question->leg = NULL;
    free(leg);
}

static void fail(struct turn_leg *leg, int status, uint16_t error) {
    struct turn *turn = leg->turn;
    struct turn_question *question = leg->question;
    struct turn_outcome outcome = {TURN_CONNECTION_BIND, error, -1, leg->peer};
    turn_leg_end(leg);
    if (question)
        turn_finish(question, status, &outcome);
    else
        turn->stats.failed++;
}

static void on_due(struct deadline *deadline) {
    fail(container_of(deadline, struct turn_leg, deadline), UV_ETIMEDOUT, 0);
}

/* --- the connection is there --------------------------------------------------------------- */

/* Without TLS the descriptor itself leaves the line, which has read nothing beyond the answer. */
static int take(struct turn_leg *leg, int *fd) {
    struct turn_line *line = leg->line;
    uv_os_fd_t own;
    if (leg->turn->place.tls) {
        int status = turn_pump_start(leg->turn->loop, line, fd);
        if (status == 0)
            leg->line = NULL;
        return status;
    }
    int status = uv_fileno((uv_handle_t *)&line->uplink.tcp, &own);
    if (status != 0)
        return status;
    *fd = fcntl(own, F_DUPFD_CLOEXEC, 0);
    return *fd < 0 ? uv_translate_sys_error(errno) : 0;
}

static void deliver(struct turn_leg *leg) {
    struct turn *turn = leg->turn;
    struct turn_question *question = leg->question;
    struct turn_outcome outcome = {TURN_CONNECT, 0, -1, leg->peer};
    int status = take(leg, &outcome.fd);
    if (status != 0) {
        fail(leg, status, 0);
        return;
    }
    turn_leg_end(leg);
    if (question) {
        turn_finish(question, 0, &outcome);
        return;
    }
    turn->ready[turn->ready_count++] = (struct turn_arrival){outcome.fd, outcome.peer};
    notice_fire(&turn->on_peer, 0);
    turn_keep_loop(turn);
}

static void bind_peer(struct turn_leg *leg) {
    struct turn *turn = leg->turn;
    uint8_t bytes[TURN_REQUEST_MAX];
    struct turn_request request = {.method = TURN_CONNECTION_BIND, .connection = leg->connection};
    crypto_random(leg->id, sizeof leg->id);
    leg->tries++;
    size_t length = turn_write(&request, &turn->login, leg->id, bytes);
    int status = turn_line_send(leg->line, bytes, length);
    if (status != 0)
        fail(leg, status, 0);
}

static void on_up(void *arg) {
    bind_peer(arg);
}

static void on_message(void *arg, const uint8_t *bytes, size_t length) {
    struct turn_leg *leg = arg;
    struct turn_msg answer;
    uint16_t error = 0;
    int status = turn_msg_parse(bytes, length, &answer);
    const struct stun_msg *stun = &answer.stun;
    if (status == 0 && (stun->method != TURN_CONNECTION_BIND ||
                        (stun->class != STUN_SUCCESS && stun->class != STUN_ERROR) ||
                        memcmp(stun->id, leg->id, STUN_ID_SIZE) != 0))
        status = UV_EPROTO;
    else if (status == 0)
        status = turn_judge(leg->turn, bytes, &answer, true, leg->tries - 1, &error);
    if (status == 0)
        deliver(leg);
    else if (status == UV_EAGAIN)
        bind_peer(leg);
    else
        fail(leg, status == ERR_EFORMAT ? UV_EPROTO : status, error);
}

static void on_bytes(void *arg, const uint8_t *bytes, size_t length) {
    (void)arg, (void)bytes, (void)length;
}

static void on_down(void *arg, int status) {
    fail(arg, status, 0);
}

static const struct turn_line_events leg_events = {on_up, on_message, on_bytes, on_down};

/* --- the spare line ------------------------------------------------------------------------ */

static void on_spare_up(void *arg) {
    struct turn *turn = arg;
    turn->spare_up = true;
}

static void lose_spare(struct turn *turn) {
    if (turn->spare)
        turn_line_close(turn->spare);
    turn->spare = NULL;
}

static void on_spare_message(void *arg, const uint8_t *bytes, size_t length) {
    (void)bytes, (void)length;
    lose_spare(arg);
}

static void on_spare_down(void *arg, int status) {
    (void)status;
    lose_spare(arg);
}

/* Failing, it is only missed. */
void turn_spare_make(struct turn *turn) {
    static const struct turn_line_events events = {on_spare_up, on_spare_message, on_bytes,
                                                   on_spare_down};
    turn->spare_up = false;
    if (turn_line_open(turn->loop, &turn->place, &events, turn, &turn->spare) != 0)
        turn->spare = NULL;
}

/* --- the way here -------------------------------------------------------------------------- */

static int find_line(struct turn_leg *leg) {
    struct turn *turn = leg->turn;
    if (!turn->spare)
        return turn_line_open(turn->loop, &turn->place, &leg_events, leg, &leg->line);
    leg->line = turn->spare;
    turn->spare = NULL;
    turn_line_expect(leg->line, &leg_events, leg);
    return 0;
}

int turn_leg_start(struct turn *turn, uint32_t connection, const struct stun_endpoint *peer,
                   struct turn_question *question) {
    struct turn_leg *leg = calloc(1, sizeof *leg);
    if (!leg)
        return UV_ENOMEM;
    leg->turn = turn;
    leg->connection = connection;
    leg->peer = *peer;
    leg->deadline.passed = on_due;
    bool is_up = turn->spare && turn->spare_up;
    int status = find_line(leg);
    if (status == 0 && !question) /* else the question has a deadline */
        status = turn_set(turn, &leg->deadline, turn_after(TURN_PATIENCE_MS));
    if (status != 0) {
        if (leg->line)
            turn_line_close(leg->line);
        free(leg);
        return status;
    }
    leg->next = turn->legs;
    leg->link = &turn->legs;
    if (leg->next)
        leg->next->link = &leg->next;
    turn->legs = leg;
    leg->question = question;
    if (question)
        question->leg = leg;
    else
        turn->coming++;
    if (is_up)
        bind_peer(leg);
    return 0;
}

/* One more than can wait here is not fetched: the server turns it away after a while. */
void turn_attempt(struct turn *turn, const struct turn_msg *message) {
    const struct turn_leg *leg = turn->legs;
    while (leg && leg->connection != message->connection)
        leg = leg->next;
    if (leg || turn->coming + turn->ready_count >= TURN_READY_MAX)
        turn->stats.refused++;
    else if (turn_leg_start(turn, message->connection, &message->peer, NULL) != 0)
        turn->stats.failed++;
}

void turn_legs_end(struct turn *turn) {
    while (turn->legs)
        turn_leg_end(turn->legs);
    while (turn->ready_count > 0)
        close(turn->ready[--turn->ready_count].fd);
    lose_spare(turn);
}

/* --- peers that have come ------------------------------------------------------------------ */

int turn_accept(struct turn *turn, struct stun_endpoint *peer) {
    if (turn->ready_count == 0)
        return turn->status ? turn->status : UV_EAGAIN;
    struct turn_arrival first = turn->ready[0];
    memmove(turn->ready, turn->ready + 1, --turn->ready_count * sizeof first);
    *peer = first.peer;
    return first.fd;
}

void turn_on_peer(struct turn *turn, notice_cb call, void *arg) {
    turn->on_peer = (struct notice){call, arg};
    turn_keep_loop(turn);
}
