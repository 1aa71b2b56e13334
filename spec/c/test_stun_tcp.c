/* Connections to servers that answer well, slowly, too much, or not at all. */
#include "core/err.h"
#include "core/loop.h"
#include "core/stun_tcp.h"
#include "spec/c/check.h"

#include <stdlib.h>

#define NEVER 12345
#define LENGTH(list) (sizeof(list) / sizeof(*(list)))

enum manner {
    HONEST,
    SLOW,    /* a byte each 2 ms */
    ENDLESS, /* the same, of something that never ends */
    SILENT,
    HANGS_UP,
    BREAKS,
    HTTP,
    LONG_CLAIM,
    BAD_ATTRIBUTE,
    SOME_STRAYS,
    MANY_STRAYS,
    FLOODS,
    REFUSES
};

static uv_loop_t loop;
static uv_tcp_t listener, guest;
static uv_timer_t pace;
static bool has_guest;
static enum manner manner;
static unsigned asked;
static struct stun_endpoint server, seen;
static char inbox[1500];
static uint8_t answer[65536];
static size_t length, sent;

static int outcome;
static struct stun_result result;

/* --- the server ---------------------------------------------------------------------------- */

static void say(const void *bytes, size_t size) {
    uv_buf_t out = uv_buf_init((char *)(uintptr_t)bytes, (unsigned)size);
    uv_try_write((uv_stream_t *)&guest, &out, 1);
}

static void on_pace(uv_timer_t *timer) {
    if (sent < length)
        say(answer + sent++, 1);
    else
        uv_timer_stop(timer);
}

static void on_guest_closed(uv_handle_t *handle) {
    (void)handle;
    has_guest = false;
}

static void lose_guest(void) {
    uv_timer_stop(&pace);
    if (has_guest && !uv_is_closing((uv_handle_t *)&guest))
        uv_close((uv_handle_t *)&guest, on_guest_closed);
}

static void on_request(const uint8_t *id) {
    struct stun_writer writer;
    uint8_t other[STUN_ID_SIZE] = "another one";
    asked++;
    stun_write(&writer, answer, sizeof answer, STUN_SUCCESS, STUN_BINDING, other);
    length = writer.length;
    for (int i = 0; manner == SOME_STRAYS && i < 5; i++)
        say(answer, length);
    for (int i = 0; manner == MANY_STRAYS && i <= STUN_TCP_STRAYS_MAX; i++)
        say(answer, length);
    stun_write(&writer, answer, sizeof answer, manner == REFUSES ? STUN_ERROR : STUN_SUCCESS,
               STUN_BINDING, id);
    if (manner == REFUSES)
        stun_write_error(&writer, 500, "no");
    else
        stun_write_endpoint(&writer, STUN_XOR_MAPPED_ADDRESS, &seen);
    if (manner == BAD_ATTRIBUTE)
        answer[25] = 7;
    length = writer.length;
    sent = 0;
    switch (manner) {
    case SILENT:
        break;
    case SLOW:
    case ENDLESS:
        if (manner == ENDLESS) { /* 1,000 bytes that begin well */
            stun_write_bytes(&writer, STUN_SOFTWARE, inbox, 1000);
            length = writer.length;
        }
        uv_timer_start(&pace, on_pace, 2, 2);
        break;
    case HANGS_UP:
        lose_guest();
        break;
    case BREAKS:
        say(answer, length - 3);
        lose_guest();
        break;
    case HTTP:
        say("HTTP/1.1 400 Bad Request\r\n\r\n", 28);
        break;
    case LONG_CLAIM:
        answer[2] = 0x10;
        say(answer, length);
        break;
    case FLOODS:
        memset(answer, 0, sizeof answer);
        say(answer, sizeof answer);
        break;
    default:
        say(answer, length);
    }
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer) {
    (void)handle, (void)suggested;
    *buffer = uv_buf_init(inbox, sizeof inbox);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer) {
    (void)stream;
    if (n < 0)
        lose_guest();
    else if (n == STUN_HEADER_SIZE)
        on_request((uint8_t *)buffer->base + 8);
}

static void on_connection(uv_stream_t *stream, int status) {
    struct sockaddr_storage from;
    int size = sizeof from;
    CHECK_EQ(status, 0);
    CHECK(!has_guest);
    uv_tcp_init(&loop, &guest);
    CHECK_EQ(uv_accept(stream, (uv_stream_t *)&guest), 0);
    has_guest = true;
    uv_tcp_getpeername(&guest, (struct sockaddr *)&from, &size);
    ip_from_sockaddr((struct sockaddr *)&from, &seen.ip, &seen.port);
    uv_read_start((uv_stream_t *)&guest, on_alloc, on_read);
}

/* --- the client ---------------------------------------------------------------------------- */

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

static struct stun_tcp *dial(enum manner how, unsigned timeout_ms, const struct stun_local *local) {
    static const struct stun_local anywhere;
    struct stun_tcp *tcp = NULL;
    manner = how;
    asked = 0;
    outcome = NEVER;
    CHECK_EQ(
        stun_tcp_open(&loop, local ? local : &anywhere, &server, timeout_ms, on_result, NULL, &tcp),
        0);
    turn();
    return tcp;
}

static void hang_up(struct stun_tcp *tcp) {
    stun_tcp_close(tcp);
    do
        uv_run(&loop, UV_RUN_ONCE);
    while (has_guest);
}

static int ask_again(struct stun_tcp *tcp, enum manner how, unsigned timeout_ms) {
    manner = how;
    outcome = NEVER;
    int status = stun_tcp_ask(tcp, timeout_ms, on_result, NULL);
    if (status == 0)
        turn();
    return status != 0 ? status : outcome;
}

static void check_good(struct stun_tcp *tcp) {
    struct stun_endpoint local = stun_tcp_local(tcp);
    CHECK_EQ(outcome, 0);
    CHECK(ip_equal(&result.external.ip, &local.ip) && result.external.port == local.port);
    CHECK(ip_equal(&result.from.ip, &server.ip) && result.from.port == server.port);
}

/* --- cases --------------------------------------------------------------------------------- */

static void it_stays_open_and_can_be_asked_again(void) {
    struct stun_tcp *tcp = dial(HONEST, 2000, NULL);
    check_good(tcp);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(ask_again(tcp, HONEST, 2000), 0);
        check_good(tcp);
    }
    CHECK_EQ(asked, 4);
    CHECK(has_guest);
    hang_up(tcp);
}

static void bytes_may_come_one_by_one(void) {
    struct stun_tcp *tcp = dial(SLOW, 5000, NULL);
    check_good(tcp);
    hang_up(tcp);
}

static void slowness_is_bounded(void) {
    static const enum manner manners[] = {ENDLESS, SILENT};
    for (size_t i = 0; i < LENGTH(manners); i++) {
        uint64_t start = uv_hrtime();
        struct stun_tcp *tcp = dial(manners[i], 100, NULL);
        uint64_t ms = (uv_hrtime() - start) / 1000000;
        CHECK_EQ(outcome, UV_ETIMEDOUT);
        CHECK(ms >= 99 && ms < 500);
        hang_up(tcp);
    }
}

static void what_is_no_answer_ends_it(void) {
    static const struct {
        enum manner how;
        int status;
    } cases[] = {
        {HANGS_UP, UV_ECONNRESET}, {BREAKS, UV_ECONNRESET},    {HTTP, UV_EPROTO},
        {LONG_CLAIM, UV_EPROTO},   {BAD_ATTRIBUTE, UV_EPROTO}, {MANY_STRAYS, UV_EPROTO},
        {FLOODS, UV_EPROTO},
    };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        uint64_t start = uv_hrtime();
        struct stun_tcp *tcp = dial(cases[i].how, 3000, NULL);
        CHECK_EQ(outcome, cases[i].status);
        CHECK((uv_hrtime() - start) / 1000000 < 1000);
        CHECK_EQ(ask_again(tcp, HONEST, 1000), cases[i].status);
        hang_up(tcp);
    }
}

static void some_strays_are_passed_over(void) {
    struct stun_tcp *tcp = dial(SOME_STRAYS, 2000, NULL);
    check_good(tcp);
    CHECK_EQ(ask_again(tcp, SOME_STRAYS, 2000), 0);
    CHECK_EQ(ask_again(tcp, SOME_STRAYS, 2000), 0);
    CHECK_EQ(ask_again(tcp, SOME_STRAYS, 2000), UV_EPROTO); /* all in all they are too many */
    hang_up(tcp);
}

static void a_refusal_is_told(void) {
    struct stun_tcp *tcp = dial(REFUSES, 2000, NULL);
    CHECK_EQ(outcome, UV_EPROTO);
    CHECK_EQ(result.error, 500);
    CHECK_EQ(ask_again(tcp, HONEST, 2000), 0);
    hang_up(tcp);
}

static void a_late_answer_is_none_to_the_next_question(void) {
    struct stun_tcp *tcp = dial(HONEST, 2000, NULL);
    CHECK_EQ(ask_again(tcp, SLOW, 20), UV_ETIMEDOUT);
    while (uv_is_active((uv_handle_t *)&pace))
        uv_run(&loop, UV_RUN_ONCE);
    CHECK_EQ(ask_again(tcp, HONEST, 2000), 0);
    check_good(tcp);
    outcome = NEVER;
    CHECK_EQ(stun_tcp_ask(tcp, 2000, on_result, NULL), 0);
    CHECK_EQ(stun_tcp_ask(tcp, 2000, on_result, NULL), UV_EBUSY);
    turn();
    hang_up(tcp);
}

static void its_port_can_be_shared(void) {
    struct stun_local local = {.ip = server.ip};
    struct stun_tcp *tcp = dial(HONEST, 2000, &local);
    uv_tcp_t sharer;
    struct sockaddr_storage address;
    uv_os_fd_t fd;
    check_good(tcp);
    struct stun_endpoint here = stun_tcp_local(tcp);
    uv_tcp_init_ex(&loop, &sharer, AF_INET);
    uv_fileno((uv_handle_t *)&sharer, &fd);
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &(int){1}, sizeof(int));
    ip_to_sockaddr(&here.ip, here.port, &address);
    CHECK_EQ(uv_tcp_bind(&sharer, (struct sockaddr *)&address, 0), 0);
    CHECK_EQ(uv_listen((uv_stream_t *)&sharer, 1, on_connection), 0);
    uv_close((uv_handle_t *)&sharer, NULL);
    hang_up(tcp);
}

static void places_that_cannot_be_had(void) {
    struct stun_local local = {.ip = server.ip, .device = "no such device"};
    struct stun_tcp *tcp;
    CHECK_EQ(stun_tcp_open(&loop, &local, &server, 100, on_result, NULL, &tcp), UV_ENODEV);
    local = (struct stun_local){.ip = {.family = 6}};
    CHECK_EQ(stun_tcp_open(&loop, &local, &server, 100, on_result, NULL, &tcp), UV_EAFNOSUPPORT);
    local = (struct stun_local){.ip = server.ip, .device = "lo"};
    tcp = dial(HONEST, 2000, &local);
    check_good(tcp);
    hang_up(tcp);
    struct stun_endpoint saved = server;
    server.port = 1;
    tcp = dial(HONEST, 2000, NULL);
    server = saved;
    CHECK_EQ(outcome, UV_ECONNREFUSED);
    CHECK_EQ(stun_tcp_ask(tcp, 100, on_result, NULL), UV_ECONNREFUSED);
    hang_up(tcp);
}

static void nothing_comes_after_close(void) {
    static const struct stun_local anywhere;
    struct stun_tcp *tcp;
    for (int turns = 0; turns < 5; turns++) {
        manner = HONEST;
        outcome = NEVER;
        CHECK_EQ(stun_tcp_open(&loop, &anywhere, &server, 1000, on_result, NULL, &tcp), 0);
        for (int i = 0; i < turns && outcome == NEVER; i++)
            uv_run(&loop, UV_RUN_NOWAIT);
        int before = outcome;
        stun_tcp_close(tcp);
        for (int i = 0; i < 20 || has_guest; i++)
            uv_run(&loop, UV_RUN_NOWAIT);
        CHECK_EQ(outcome, before);
    }
}

static void on_close_it(void *arg, int status, const struct stun_result *got) {
    (void)got;
    outcome = status;
    stun_tcp_close(*(struct stun_tcp **)arg);
}

static void callbacks_may_close(void) {
    static const struct stun_local anywhere;
    static const enum manner manners[] = {HONEST, HTTP, HANGS_UP, SILENT, SOME_STRAYS};
    for (size_t i = 0; i < LENGTH(manners); i++) {
        struct stun_tcp *tcp;
        manner = manners[i];
        outcome = NEVER;
        CHECK_EQ(stun_tcp_open(&loop, &anywhere, &server, 50, on_close_it, &tcp, &tcp), 0);
        turn();
        do
            uv_run(&loop, UV_RUN_NOWAIT);
        while (has_guest);
    }
}

int main(void) {
    struct sockaddr_storage address;
    struct sockaddr_in any;
    int size = sizeof address;
    uv_loop_init(&loop);
    uv_ip4_addr("127.0.0.1", 0, &any);
    uv_tcp_init(&loop, &listener);
    uv_timer_init(&loop, &pace);
    uv_tcp_bind(&listener, (struct sockaddr *)&any, 0);
    uv_tcp_getsockname(&listener, (struct sockaddr *)&address, &size);
    ip_from_sockaddr((struct sockaddr *)&address, &server.ip, &server.port);
    uv_listen((uv_stream_t *)&listener, 8, on_connection);
    RUN(it_stays_open_and_can_be_asked_again);
    RUN(bytes_may_come_one_by_one);
    RUN(slowness_is_bounded);
    RUN(what_is_no_answer_ends_it);
    RUN(some_strays_are_passed_over);
    RUN(a_refusal_is_told);
    RUN(a_late_answer_is_none_to_the_next_question);
    RUN(its_port_can_be_shared);
    RUN(places_that_cannot_be_had);
    RUN(nothing_comes_after_close);
    RUN(callbacks_may_close);
    uv_close((uv_handle_t *)&listener, NULL);
    uv_close((uv_handle_t *)&pace, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    int left = uv_loop_close(&loop);
    if (left != 0)
        printf("handles were left open\n");
    return check_report() || left != 0;
}
