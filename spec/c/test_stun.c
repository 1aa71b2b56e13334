/* Questions to servers that answer well, badly, late, from elsewhere, or not at all. */
#include "core/crypto.h"
#include "core/err.h"
#include "core/loop.h"
#include "core/stun.h"
#include "spec/c/check.h"

#include <stdlib.h>

#define NEVER 12345
#define MANY 200
#define LENGTH(list) (sizeof(list) / sizeof(*(list)))

enum manner {
    HONEST,
    FIRST_IS_LOST,
    SILENT,
    FOREIGN_ID,
    CUT,
    TOO_LONG,
    EMPTY,
    NOISE,
    INDICATES,
    ANOTHER_METHOD,
    EVERY_LENGTH, /* broken answers of all lengths, then a good one */
    FLOOD,        /* noise and copies, then a good one, and more copies */
    REFUSES,
    ADDRESSLESS,
    DEMANDS, /* that we understand what we do not */
    REVERSED /* keeps the questions, and answers the last one first */
};

/* The server has two addresses and two ports: which[address * 2 + port]. It announces the opposite
 * one as its other address, when it is to announce anything. */
static struct place {
    uv_udp_t udp;
    struct stun_endpoint at;
} places[4];
static uv_loop_t loop;
static enum manner manner;
static unsigned heard;
static bool announces;
static int answers_from = -1; /* a place; -1 for the one that was asked for */
static char inbox[65536];
static struct {
    uint8_t id[STUN_ID_SIZE];
    struct sockaddr_storage from;
} kept[MANY];

static int outcome;
static unsigned answered;
static struct stun_result result;

/* --- the server ---------------------------------------------------------------------------- */

static void send_to(struct place *place, const void *bytes, size_t length,
                    const struct sockaddr *to) {
    uv_buf_t out = uv_buf_init((char *)(uintptr_t)bytes, (unsigned)length);
    uv_udp_try_send(&place->udp, &out, 1, to);
}

static size_t good_answer(uint8_t *bytes, size_t size, const uint8_t *id,
                          const struct sockaddr *to) {
    struct stun_writer writer;
    struct stun_endpoint seen;
    ip_from_sockaddr(to, &seen.ip, &seen.port);
    stun_write(&writer, bytes, size, STUN_SUCCESS, STUN_BINDING, id);
    stun_write_endpoint(&writer, STUN_XOR_MAPPED_ADDRESS, &seen);
    if (announces)
        stun_write_endpoint(&writer, STUN_OTHER_ADDRESS, &places[3].at);
    return writer.length;
}

static void answer_badly(struct place *place, uint8_t *bytes, size_t length,
                         const struct sockaddr *to) {
    static uint8_t long_one[4000];
    struct stun_writer writer = {bytes, 256, length};
    uint8_t id[STUN_ID_SIZE];
    memcpy(id, bytes + 8, sizeof id);
    switch (manner) {
    case FOREIGN_ID:
        bytes[19] ^= 1;
        break;
    case CUT:
        length -= 4;
        break;
    case TOO_LONG:
        memcpy(long_one, bytes, length);
        writer = (struct stun_writer){long_one, sizeof long_one, length};
        stun_write_bytes(&writer, STUN_SOFTWARE, inbox, 3000);
        send_to(place, long_one, writer.length, to);
        return;
    case EMPTY:
        length = 0;
        break;
    case NOISE:
        crypto_random(bytes, length);
        break;
    case INDICATES:
    case ANOTHER_METHOD:
        stun_write(&writer, bytes, 256, manner == INDICATES ? STUN_INDICATION : STUN_SUCCESS,
                   manner == INDICATES ? STUN_BINDING : 3, id);
        length = writer.length;
        break;
    case REFUSES:
        stun_write(&writer, bytes, 256, STUN_ERROR, STUN_BINDING, id);
        stun_write_error(&writer, 420, "Unknown Attribute");
        length = writer.length;
        break;
    case ADDRESSLESS:
        stun_write(&writer, bytes, 256, STUN_SUCCESS, STUN_BINDING, id);
        length = writer.length;
        break;
    case DEMANDS:
        stun_write_bytes(&writer, 0x7777, "", 0);
        length = writer.length;
        break;
    default:
        break;
    }
    send_to(place, bytes, length, to);
}

static void answer_at_length(struct place *place, const uint8_t *id, const struct sockaddr *to) {
    static const uint16_t types[] = {STUN_MAPPED_ADDRESS, STUN_XOR_MAPPED_ADDRESS,
                                     STUN_OTHER_ADDRESS, STUN_ERROR_CODE};
    static unsigned round;
    uint16_t type = types[round++ % LENGTH(types)]; /* one a time: buffers are not endless */
    for (size_t length = 0; length < 64; length++) {
        uint8_t bytes[128];
        struct stun_writer writer;
        stun_write(&writer, bytes, sizeof bytes, STUN_SUCCESS, STUN_BINDING, id);
        stun_write_bytes(&writer, type, inbox + STUN_HEADER_SIZE, length);
        bytes[25] = 9; /* a family that there is not */
        bytes[26] = 9; /* nor such an error */
        bytes[2] ^= (uint8_t)(length > 60);
        send_to(place, bytes, writer.length, to);
    }
}

static void on_request(uv_udp_t *udp, ssize_t n, const uv_buf_t *buffer,
                       const struct sockaddr *from, unsigned flags) {
    struct place *place = container_of(udp, struct place, udp);
    struct stun_msg request;
    uint8_t bytes[256];
    (void)flags;
    if (n <= 0 || !from || stun_msg_parse((uint8_t *)buffer->base, (size_t)n, &request) != 0)
        return;
    heard++;
    if (manner == SILENT || (manner == FIRST_IS_LOST && heard == 1))
        return;
    if (manner == REVERSED) {
        memcpy(kept[heard - 1].id, request.id, STUN_ID_SIZE);
        memcpy(&kept[heard - 1].from, from, sizeof(struct sockaddr_in));
        for (unsigned i = heard; heard == MANY && i-- > 0;) {
            size_t length = good_answer(bytes, sizeof bytes, kept[i].id, (void *)&kept[i].from);
            send_to(place, bytes, length, (void *)&kept[i].from);
        }
        return;
    }
    unsigned whence = (unsigned)(place - places) ^ (unsigned)request.change >> 1;
    if (answers_from >= 0)
        whence = (unsigned)answers_from;
    size_t length = good_answer(bytes, sizeof bytes, request.id, from);
    if (manner == EVERY_LENGTH)
        answer_at_length(place, request.id, from);
    for (int i = 0; manner == FLOOD && i < 100; i++)
        send_to(place, i % 2 ? (uint8_t *)inbox : request.id, STUN_ID_SIZE, from);
    if (manner != HONEST && manner != FIRST_IS_LOST && manner != EVERY_LENGTH && manner != FLOOD)
        answer_badly(&places[whence], bytes, length, from);
    else
        send_to(&places[whence], bytes, length, from);
    for (int i = 0; manner == FLOOD && i < 20; i++)
        send_to(place, bytes, length, from);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer) {
    (void)handle, (void)suggested;
    *buffer = uv_buf_init(inbox, sizeof inbox);
}

static int bind_place(unsigned i, const char *ip, uint16_t port) {
    struct sockaddr_storage address;
    int size = sizeof address;
    ip_parse(ip, strlen(ip), &places[i].at.ip);
    ip_to_sockaddr(&places[i].at.ip, port, &address);
    uv_udp_init(&loop, &places[i].udp);
    int status = uv_udp_bind(&places[i].udp, (struct sockaddr *)&address, 0);
    uv_udp_getsockname(&places[i].udp, (struct sockaddr *)&address, &size);
    ip_from_sockaddr((struct sockaddr *)&address, &places[i].at.ip, &places[i].at.port);
    uv_udp_recv_start(&places[i].udp, on_alloc, on_request);
    uv_unref((uv_handle_t *)&places[i].udp);
    return status;
}

static bool start_server(void) {
    return bind_place(0, "127.0.0.1", 0) == 0 && bind_place(1, "127.0.0.1", 0) == 0 &&
           bind_place(2, "127.0.0.2", places[0].at.port) == 0 &&
           bind_place(3, "127.0.0.2", places[1].at.port) == 0;
}

/* --- the client ---------------------------------------------------------------------------- */

static struct stun_socket *open_socket(const char *ip) {
    struct stun_local local = {.port = 0};
    struct stun_socket *made = NULL;
    ip_parse(ip, strlen(ip), &local.ip);
    CHECK_EQ(stun_socket_open(&loop, &local, &made), 0);
    return made;
}

static void on_result(void *arg, int status, const struct stun_result *got) {
    (void)arg;
    CHECK_EQ(outcome, NEVER);
    outcome = status;
    result = *got;
}

static void turn(void) {
    while (outcome == NEVER)
        uv_run(&loop, UV_RUN_ONCE);
}

static void ask_more(struct stun_socket *from, enum manner how, struct stun_question question) {
    struct stun_transaction *transaction;
    manner = how;
    heard = 0;
    outcome = NEVER;
    if (question.server.ip.family == 0)
        question.server = places[0].at;
    CHECK_EQ(stun_ask(from, &question, on_result, NULL, &transaction), 0);
    turn();
}

static void ask(struct stun_socket *from, enum manner how, unsigned timeout_ms) {
    ask_more(from, how, (struct stun_question){.timeout_ms = timeout_ms});
}

static bool same(const struct stun_endpoint *a, const struct stun_endpoint *b) {
    return ip_equal(&a->ip, &b->ip) && a->port == b->port;
}

static uint64_t ms_since(uint64_t start) {
    return (uv_hrtime() - start) / 1000000;
}

/* --- cases --------------------------------------------------------------------------------- */

static void an_honest_answer(void) {
    struct stun_socket *own = open_socket("127.0.0.1");
    struct stun_endpoint local = stun_socket_local(own);
    ask(own, HONEST, 2000);
    CHECK_EQ(outcome, 0);
    CHECK(local.port != 0 && same(&result.external, &local));
    CHECK(same(&result.from, &places[0].at));
    CHECK_EQ(result.other.ip.family, 0);
    CHECK_EQ(result.requests, 1);
    CHECK(result.rtt_us < 1000000);
    CHECK(!uv_loop_alive(&loop)); /* a socket that waits for nothing holds nothing up */
    stun_socket_close(own);
}

static void a_lost_request_is_sent_again(void) {
    struct stun_socket *own = open_socket("127.0.0.1");
    uint64_t start = uv_hrtime();
    ask(own, FIRST_IS_LOST, 3000);
    CHECK_EQ(outcome, 0);
    CHECK_EQ(result.requests, 2);
    uint64_t ms = ms_since(start);
    CHECK(ms >= 99 && ms < 500);
    CHECK(result.rtt_us < 90000); /* of the second one */
    stun_socket_close(own);
}

/* 0, 100, 300 and 700 ms; the next would be sent after 1.5 s. */
static void silence_ends_with_the_timeout(void) {
    struct stun_socket *own = open_socket("127.0.0.1");
    uint64_t start = uv_hrtime();
    ask(own, SILENT, 850);
    CHECK_EQ(outcome, UV_ETIMEDOUT);
    CHECK(ms_since(start) >= 849 && ms_since(start) < 1350);
    CHECK_EQ(heard, 4);
    CHECK_EQ(result.requests, 4);
    ask_more(own, SILENT, (struct stun_question){.timeout_ms = 250, .once = true});
    CHECK_EQ(outcome, UV_ETIMEDOUT);
    CHECK_EQ(heard, 1);
    stun_socket_close(own);
}

static void what_is_no_answer_is_passed_over(void) {
    static const struct {
        enum manner how;
        struct stun_stats counted;
    } cases[] = {
        {FOREIGN_ID, {.strays = 1}},      {CUT, {.garbage = 1}},   {TOO_LONG, {.garbage = 1}},
        {EMPTY, {.garbage = 1}},          {NOISE, {.garbage = 1}}, {INDICATES, {.garbage = 1}},
        {ANOTHER_METHOD, {.garbage = 1}},
    };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct stun_socket *own = open_socket("127.0.0.1");
        ask(own, cases[i].how, 60);
        CHECK_EQ(outcome, UV_ETIMEDOUT);
        CHECK(memcmp(stun_socket_stats(own), &cases[i].counted, sizeof cases[i].counted) == 0);
        stun_socket_close(own);
    }
}

static void a_good_answer_is_found_among_bad_ones(void) {
    struct stun_socket *own = open_socket("127.0.0.1");
    for (int round = 1; round <= 4; round++) {
        ask(own, EVERY_LENGTH, 3000);
        CHECK_EQ(outcome, 0);
        CHECK_EQ(stun_socket_stats(own)->garbage, 64 * round);
    }
    ask(own, FLOOD, 3000);
    CHECK_EQ(outcome, 0);
    ask(own, HONEST, 3000); /* which reads what was left */
    CHECK_EQ(outcome, 0);
    CHECK(stun_socket_stats(own)->strays > 0);
    stun_socket_close(own);
}

static void a_refusal_is_told(void) {
    struct stun_socket *own = open_socket("127.0.0.1");
    ask(own, REFUSES, 1000);
    CHECK_EQ(outcome, UV_EPROTO);
    CHECK_EQ(result.error, 420);
    ask(own, ADDRESSLESS, 1000);
    CHECK_EQ(outcome, UV_EPROTO);
    CHECK_EQ(result.error, 0);
    ask(own, DEMANDS, 1000);
    CHECK_EQ(outcome, UV_EPROTO);
    answers_from = 0; /* an error comes from where the request went */
    ask_more(own, REFUSES, (struct stun_question){.timeout_ms = 1000, .change = STUN_CHANGE_BOTH});
    answers_from = -1;
    CHECK_EQ(outcome, UV_EPROTO);
    CHECK_EQ(result.error, 420);
    stun_socket_close(own);
}

/* Each change, answered from each place: one of the four is right. What the server has announced
 * makes no difference here, as the places are the right ones. */
static void a_change_is_answered_from_there(void) {
    static const enum stun_change changes[] = {STUN_CHANGE_NONE, STUN_CHANGE_PORT,
                                               STUN_CHANGE_ADDRESS, STUN_CHANGE_BOTH};
    for (int known = 0; known < 2; known++) {
        struct stun_socket *own = open_socket("127.0.0.1");
        announces = known;
        if (known) {
            ask(own, HONEST, 1000);
            CHECK(same(&result.other, &places[3].at));
        }
        for (unsigned i = 0; i < 4; i++)
            for (unsigned from = 0; from < 4; from++) {
                uint64_t foreign = stun_socket_stats(own)->foreign;
                answers_from = (int)from;
                ask_more(own, HONEST,
                         (struct stun_question){.timeout_ms = from == i ? 2000 : 30,
                                                .change = changes[i]});
                CHECK_EQ(outcome, from == i ? 0 : UV_ETIMEDOUT);
                CHECK_EQ(stun_socket_stats(own)->foreign - foreign, from != i);
                if (from == i)
                    CHECK(same(&result.from, &places[from].at));
            }
        answers_from = -1;
        announces = false;
        stun_socket_close(own);
    }
}

/* It said 127.0.0.2, and answers from 127.0.0.3: before it has said so, nobody can know better. */
static void another_other_address_is_foreign(void) {
    struct stun_socket *own = open_socket("127.0.0.1");
    struct stun_endpoint saved = places[3].at;
    struct stun_question both = {.timeout_ms = 50, .change = STUN_CHANGE_BOTH};
    places[3].at.ip.bytes[3] = 3;
    announces = true;
    ask_more(own, HONEST, both);
    CHECK_EQ(outcome, 0);
    ask(own, HONEST, 1000);
    ask_more(own, HONEST, both);
    CHECK_EQ(outcome, UV_ETIMEDOUT);
    announces = false;
    places[3].at = saved;
    stun_socket_close(own);
}

static void on_counted(void *arg, int status, const struct stun_result *got) {
    struct stun_endpoint *local = arg;
    CHECK_EQ(status, 0);
    CHECK(same(&got->external, local));
    answered++;
}

static void many_at_one_time(void) {
    struct stun_socket *own = open_socket("127.0.0.1");
    struct stun_endpoint local = stun_socket_local(own);
    struct stun_question question = {.server = places[0].at, .timeout_ms = 5000, .once = true};
    struct stun_transaction *transaction;
    manner = REVERSED;
    heard = answered = 0;
    for (unsigned i = 0; i < MANY; i++) {
        CHECK_EQ(stun_ask(own, &question, on_counted, &local, &transaction), 0);
        if (i % 20 == 19) /* the receive buffer of the server is not endless */
            uv_run(&loop, UV_RUN_NOWAIT);
    }
    while (uv_loop_alive(&loop))
        uv_run(&loop, UV_RUN_ONCE);
    CHECK_EQ(answered, MANY);
    CHECK_EQ(stun_socket_stats(own)->strays, 0);
    stun_socket_close(own);
}

static void more_are_refused(void) {
    struct stun_socket *own = open_socket("127.0.0.1");
    struct stun_question question = {.server = places[0].at, .once = true};
    struct stun_transaction *transaction;
    manner = SILENT;
    outcome = NEVER;
    for (unsigned i = 0; i < STUN_OPEN_MAX; i++)
        CHECK_EQ(stun_ask(own, &question, on_result, NULL, &transaction), 0);
    CHECK_EQ(stun_ask(own, &question, on_result, NULL, &transaction), UV_ENOBUFS);
    stun_socket_close(own);
    for (int i = 0; i < 20; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    CHECK_EQ(outcome, NEVER); /* nothing comes after close */
}

/* ICMP says so at once; the transactions with others are not touched by that. */
static void nobody_is_there(void) {
    struct stun_socket *own = open_socket("127.0.0.1"), *gone = open_socket("127.0.0.1");
    struct stun_question question = {.server = stun_socket_local(gone), .timeout_ms = 3000};
    struct stun_question living = {.server = places[0].at, .timeout_ms = 3000};
    struct stun_endpoint local = stun_socket_local(own);
    struct stun_transaction *transaction;
    stun_socket_close(gone);
    answered = heard = 0;
    manner = FIRST_IS_LOST;
    CHECK_EQ(stun_ask(own, &living, on_counted, &local, &transaction), 0);
    uint64_t start = uv_hrtime();
    for (int i = 0; i < 3; i++) {
        outcome = NEVER;
        CHECK_EQ(stun_ask(own, &question, on_result, NULL, &transaction), 0);
        turn();
        CHECK_EQ(outcome, UV_ECONNREFUSED);
    }
    CHECK(ms_since(start) < 90);
    CHECK_EQ(stun_socket_stats(own)->unreachable, 3);
    while (uv_loop_alive(&loop))
        uv_run(&loop, UV_RUN_ONCE);
    CHECK_EQ(answered, 1);
    stun_socket_close(own);
}

static void nothing_comes_after_cancel(void) {
    struct stun_socket *own = open_socket("127.0.0.1");
    struct stun_question question = {.server = places[0].at, .timeout_ms = 100};
    struct stun_transaction *transaction;
    manner = HONEST;
    outcome = NEVER;
    heard = 0;
    CHECK_EQ(stun_ask(own, &question, on_result, NULL, &transaction), 0);
    stun_cancel(transaction);
    while (heard == 0)
        uv_run(&loop, UV_RUN_NOWAIT);
    for (int i = 0; i < 10; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    CHECK_EQ(outcome, NEVER);
    ask(own, HONEST, 1000); /* the late answer is none to this one */
    CHECK_EQ(outcome, 0);
    CHECK_EQ(stun_socket_stats(own)->strays, 1);
    stun_socket_close(own);
}

static void on_close_it(void *arg, int status, const struct stun_result *got) {
    (void)got;
    outcome = status;
    stun_socket_close(arg);
}

static void callbacks_may_close(void) {
    static const enum manner manners[] = {HONEST, SILENT};
    for (size_t i = 0; i < LENGTH(manners); i++) {
        struct stun_socket *own = open_socket("127.0.0.1");
        struct stun_question question = {.server = places[0].at, .timeout_ms = 50};
        struct stun_transaction *transaction;
        manner = manners[i];
        outcome = NEVER;
        CHECK_EQ(stun_ask(own, &question, on_result, NULL, &transaction), 0);
        CHECK_EQ(stun_ask(own, &question, on_result, NULL, &transaction), 0);
        stun_cancel(transaction);
        stun_socket_close(own);
        own = open_socket("127.0.0.1");
        for (int n = 0; n < 3; n++)
            CHECK_EQ(stun_ask(own, &question, on_close_it, own, &transaction), 0);
        turn();
        CHECK_EQ(outcome, manners[i] == HONEST ? 0 : UV_ETIMEDOUT);
    }
}

static void places_that_cannot_be_had(void) {
    struct stun_socket *own = open_socket("127.0.0.1"), *made;
    struct stun_local local = {.ip = places[0].at.ip, .port = stun_socket_local(own).port};
    CHECK_EQ(stun_socket_open(&loop, &local, &made), UV_EADDRINUSE);
    local.ip.bytes[0] = 203; /* 203.0.0.1 */
    CHECK_EQ(stun_socket_open(&loop, &local, &made), UV_EADDRNOTAVAIL);
    local = (struct stun_local){.ip = places[0].at.ip, .device = "no such device"};
    CHECK_EQ(stun_socket_open(&loop, &local, &made), UV_ENODEV);
    local.device = "lo";
    CHECK_EQ(stun_socket_open(&loop, &local, &made), 0);
    ask(made, HONEST, 1000);
    CHECK_EQ(outcome, 0);
    stun_socket_close(made);
    struct stun_question question = {.server = {.ip = {.family = 6, .bytes = {[15] = 1}}}};
    struct stun_transaction *transaction;
    CHECK_EQ(stun_ask(own, &question, on_result, NULL, &transaction), UV_EAFNOSUPPORT);
    question.server.ip = (struct ip){.family = 4, .bytes = {255, 255, 255, 255}};
    CHECK_EQ(stun_ask(own, &question, on_result, NULL, &transaction) < 0, 1);
    stun_socket_close(own);
}

static void on_closed_place(uv_handle_t *handle) {
    (void)handle;
}

static void by_ipv6(void) {
    struct place saved = places[3];
    struct stun_local local = {.ip = {.family = 6, .bytes = {[15] = 1}}};
    struct stun_socket *own, *gone;
    if (stun_socket_open(&loop, &local, &own) == UV_EADDRNOTAVAIL)
        return; /* a machine without IPv6 */
    stun_socket_open(&loop, &local, &gone);
    uv_close((uv_handle_t *)&places[3].udp, on_closed_place);
    uv_run(&loop, UV_RUN_NOWAIT);
    CHECK_EQ(bind_place(3, "::1", 0), 0);
    ask_more(own, HONEST, (struct stun_question){.server = places[3].at, .timeout_ms = 2000});
    CHECK_EQ(outcome, 0);
    struct stun_endpoint here = stun_socket_local(own), nobody = stun_socket_local(gone);
    CHECK(same(&result.external, &here));
    stun_socket_close(gone);
    ask_more(own, HONEST, (struct stun_question){.server = nobody, .timeout_ms = 2000});
    CHECK_EQ(outcome, UV_ECONNREFUSED);
    stun_socket_close(own);
    uv_close((uv_handle_t *)&places[3].udp, on_closed_place);
    uv_run(&loop, UV_RUN_NOWAIT);
    places[3] = saved;
    CHECK_EQ(bind_place(3, "127.0.0.2", saved.at.port), 0);
}

int main(void) {
    uv_loop_init(&loop);
    if (!start_server()) {
        printf("cannot bind the server\n");
        return 1;
    }
    RUN(an_honest_answer);
    RUN(a_lost_request_is_sent_again);
    RUN(silence_ends_with_the_timeout);
    RUN(what_is_no_answer_is_passed_over);
    RUN(a_good_answer_is_found_among_bad_ones);
    RUN(a_refusal_is_told);
    RUN(a_change_is_answered_from_there);
    RUN(another_other_address_is_foreign);
    RUN(many_at_one_time);
    RUN(more_are_refused);
    RUN(nobody_is_there);
    RUN(nothing_comes_after_cancel);
    RUN(callbacks_may_close);
    RUN(places_that_cannot_be_had);
    RUN(by_ipv6);
    for (size_t i = 0; i < LENGTH(places); i++)
        uv_close((uv_handle_t *)&places[i].udp, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    int left = uv_loop_close(&loop);
    if (left != 0)
        printf("handles were left open\n");
    return check_report() || left != 0;
}
