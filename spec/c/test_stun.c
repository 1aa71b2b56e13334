/* Look-ups from servers that answer well, badly, late or not at all. */
#include "core/bytes.h"
#include "core/err.h"
#include "core/loop.h"
#include "core/stun.h"
#include "spec/c/check.h"

#include <stdlib.h>

#define NEVER 12345

enum manner {
    HONEST,
    FIRST_IS_LOST,
    SILENT,
    FOREIGN_ID,
    GARBAGE,
    REFUSES,
    ADDRESSLESS,
    OTHER_PORT
};

static uv_loop_t loop;
static uv_udp_t server, impostor;
static enum manner manner;
static unsigned heard;
static struct sockaddr_in server_address;
static char inbox[1500];

static int outcome;
static struct stun_result result;

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer) {
    (void)handle;
    (void)suggested;
    *buffer = uv_buf_init(inbox, sizeof inbox);
}

static void on_request(uv_udp_t *udp, ssize_t n, const uv_buf_t *buffer,
                       const struct sockaddr *from, unsigned flags) {
    uint8_t answer[64] = {1, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42};
    size_t length = 32;
    (void)flags;
    if (n != STUN_HEADER_SIZE || !from)
        return;
    heard++;
    memcpy(answer + 8, buffer->base + 8, STUN_ID_SIZE);
    put_u32(answer + 20, 0x00200008);
    put_u32(answer + 24, 0x0001a147);
    put_u32(answer + 28, 0xe112a643); /* 192.0.2.1:32853 */
    if (manner == SILENT || (manner == FIRST_IS_LOST && heard == 1))
        return;
    if (manner == FOREIGN_ID)
        answer[19] ^= 1;
    if (manner == GARBAGE)
        answer[3] = 16;
    if (manner == REFUSES) {
        answer[1] = 0x11;
        put_u32(answer + 20, 0x00090008);
        put_u32(answer + 24, 0x00000500);
    }
    if (manner == ADDRESSLESS) {
        answer[3] = 0;
        length = 20;
    }
    uv_buf_t out = uv_buf_init((char *)answer, (unsigned)length);
    uv_udp_try_send(manner == OTHER_PORT ? &impostor : udp, &out, 1, from);
}

static void on_result(void *arg, int status, const struct stun_result *got) {
    (void)arg;
    CHECK_EQ(outcome, NEVER);
    outcome = status;
    result = *got;
}

static void look_up(enum manner how, unsigned timeout_ms) {
    struct stun *stun = NULL;
    manner = how;
    heard = 0;
    outcome = NEVER;
    CHECK_EQ(stun_lookup(&loop, (struct sockaddr *)&server_address, NULL, timeout_ms, on_result,
                         NULL, &stun),
             0);
    while (outcome == NEVER)
        uv_run(&loop, UV_RUN_ONCE);
}

static void an_honest_answer(void) {
    char text[IP_TEXT_SIZE];
    look_up(HONEST, 2000);
    CHECK_EQ(outcome, 0);
    ip_format(&result.external, text);
    CHECK_TEXT(text, "192.0.2.1");
    CHECK_EQ(result.external_port, 32853);
    ip_format(&result.local, text);
    CHECK_TEXT(text, "127.0.0.1");
    CHECK(result.local_port != 0);
    CHECK_EQ(result.requests, 1);
}

static void a_lost_request_is_sent_again(void) {
    uint64_t start = uv_hrtime();
    look_up(FIRST_IS_LOST, 3000);
    uint64_t ms = (uv_hrtime() - start) / 1000000;
    CHECK_EQ(outcome, 0);
    CHECK_EQ(result.requests, 2);
    CHECK(ms >= 495 && ms < 1200); /* RFC 8489, 6.2.1: 500 ms */
}

static void silence_ends_with_the_timeout(void) {
    uint64_t start = uv_hrtime();
    look_up(SILENT, 100);
    CHECK_EQ(outcome, UV_ETIMEDOUT);
    CHECK((uv_hrtime() - start) / 1000000 < 600);
}

static void foreign_answers_are_passed_over(void) {
    static const enum manner cases[] = {FOREIGN_ID, GARBAGE, OTHER_PORT};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        look_up(cases[i], 100);
        CHECK_EQ(outcome, UV_ETIMEDOUT);
        CHECK_EQ(heard, 1);
    }
}

static void a_refusal_is_told(void) {
    look_up(REFUSES, 1000);
    CHECK_EQ(outcome, UV_EPROTO);
    CHECK_EQ(result.error, 500);
    look_up(ADDRESSLESS, 1000);
    CHECK_EQ(outcome, UV_EPROTO);
    CHECK_EQ(result.error, 0);
}

static void on_gone(uv_handle_t *handle) {
    free(handle);
}

static void nobody_is_there(void) {
    struct sockaddr_in saved = server_address;
    int size = sizeof server_address;
    uv_udp_t *gone = calloc(1, sizeof *gone);
    uv_ip4_addr("127.0.0.1", 0, &server_address);
    uv_udp_init(&loop, gone);
    uv_udp_bind(gone, (struct sockaddr *)&server_address, 0);
    uv_udp_getsockname(gone, (struct sockaddr *)&server_address, &size);
    uv_close((uv_handle_t *)gone, on_gone);
    uv_run(&loop, UV_RUN_NOWAIT);
    look_up(HONEST, 3000);
    CHECK_EQ(outcome, UV_ECONNREFUSED);
    server_address = saved;
}

static void nothing_comes_after_cancel(void) {
    struct stun *stun = NULL;
    manner = HONEST;
    outcome = NEVER;
    heard = 0;
    CHECK_EQ(
        stun_lookup(&loop, (struct sockaddr *)&server_address, NULL, 100, on_result, NULL, &stun),
        0);
    stun_cancel(stun);
    while (heard == 0)
        uv_run(&loop, UV_RUN_ONCE);
    for (int i = 0; i < 10; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    CHECK_EQ(outcome, NEVER);
}

static void a_local_port_is_used(void) {
    struct sockaddr_in local;
    struct stun *stun = NULL;
    uv_ip4_addr("127.0.0.1", 0, &local);
    look_up(HONEST, 1000);
    local.sin_port = htons(result.local_port);
    outcome = NEVER;
    uint16_t wanted = result.local_port;
    uv_run(&loop, UV_RUN_NOWAIT);
    CHECK_EQ(stun_lookup(&loop, (struct sockaddr *)&server_address, (struct sockaddr *)&local, 1000,
                         on_result, NULL, &stun),
             0);
    while (outcome == NEVER)
        uv_run(&loop, UV_RUN_ONCE);
    CHECK_EQ(result.local_port, wanted);
    CHECK_EQ(stun_lookup(&loop, (struct sockaddr *)&server_address,
                         (struct sockaddr *)&server_address, 1000, on_result, NULL, &stun),
             UV_EADDRINUSE);
}

int main(void) {
    int size = sizeof server_address;
    struct sockaddr_in any;
    uv_loop_init(&loop);
    uv_ip4_addr("127.0.0.1", 0, &any);
    uv_udp_init(&loop, &server);
    uv_udp_init(&loop, &impostor);
    uv_udp_bind(&server, (struct sockaddr *)&any, 0);
    uv_udp_bind(&impostor, (struct sockaddr *)&any, 0);
    uv_udp_getsockname(&server, (struct sockaddr *)&server_address, &size);
    uv_udp_recv_start(&server, on_alloc, on_request);
    RUN(an_honest_answer);
    RUN(a_lost_request_is_sent_again);
    RUN(silence_ends_with_the_timeout);
    RUN(foreign_answers_are_passed_over);
    RUN(a_refusal_is_told);
    RUN(nobody_is_there);
    RUN(nothing_comes_after_cancel);
    RUN(a_local_port_is_used);
    uv_close((uv_handle_t *)&server, NULL);
    uv_close((uv_handle_t *)&impostor, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    int left = uv_loop_close(&loop);
    if (left != 0)
        printf("handles were left open\n");
    return check_report() || left != 0;
}
