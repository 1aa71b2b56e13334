/* Questions to servers that answer well, badly, late or not at all. */
#include "core/bytes.h"
#include "core/ntp.h"
#include "spec/c/check.h"

#include <stdlib.h>

#define NEVER 12345
#define MS 1000000LL
#define SHIFT_NS (1700000000000000000LL) /* the servers' time is the steady clock plus that */

enum manner {
    HONEST,
    FIRST_IS_LOST,
    ONCE, /* and no more */
    SILENT,
    FOREIGN_NONCE,
    NO_NONCE,
    SHORT,
    OTHER_PORT,
    REFUSES,
    REFUSES_LATER,
    UNSYNCHRONIZED,
    CLAIMS_TO_BE_SLOW,
    REPEATS, /* each answer twice */
};

static uv_loop_t loop;
static uv_udp_t server, impostor;
static enum manner manner;
static unsigned heard;
static struct sockaddr_in server_address;
static char inbox[1500];
static int outcome;
static struct ntp_result result;

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer) {
    (void)handle;
    (void)suggested;
    *buffer = uv_buf_init(inbox, sizeof inbox);
}

static uint64_t timestamp(int64_t ns) {
    uint64_t seconds = (uint64_t)(ns / 1000000000) + 2208988800;
    return seconds << 32 | ((uint64_t)(ns % 1000000000) << 32) / 1000000000;
}

static size_t make_answer(const uint8_t *request, uint8_t *answer) {
    int64_t now = clock_steady_ns() + SHIFT_NS;
    answer[0] = manner == UNSYNCHRONIZED ? 0xe4 : 0x24;
    answer[1] = manner == REFUSES || (manner == REFUSES_LATER && heard > 1) ? 0 : 2;
    memcpy(answer + 12, "RATE", 4);
    answer[3] = 0xec; /* 2^-20 s */
    if (manner != NO_NONCE)
        memcpy(answer + 24, request + 40, 8);
    if (manner == FOREIGN_NONCE)
        answer[31] ^= 1;
    put_u64(answer + 32, timestamp(now));
    put_u64(answer + 40, timestamp(manner == CLAIMS_TO_BE_SLOW ? now + 50 * MS : now));
    return manner == SHORT ? NTP_SIZE - 1 : NTP_SIZE;
}

static void on_request(uv_udp_t *udp, ssize_t n, const uv_buf_t *buffer,
                       const struct sockaddr *from, unsigned flags) {
    uint8_t answer[NTP_SIZE] = {0};
    (void)flags;
    if (n != NTP_SIZE || !from)
        return;
    heard++;
    if (manner == SILENT || (manner == FIRST_IS_LOST && heard == 1) ||
        (manner == ONCE && heard > 1))
        return;
    size_t length = make_answer((const uint8_t *)buffer->base, answer);
    uv_buf_t out = uv_buf_init((char *)answer, (unsigned)length);
    uv_udp_try_send(manner == OTHER_PORT ? &impostor : udp, &out, 1, from);
    if (manner == REPEATS)
        uv_udp_try_send(udp, &out, 1, from);
}

static void on_result(void *arg, int status, const struct ntp_result *got) {
    (void)arg;
    CHECK_EQ(outcome, NEVER);
    outcome = status;
    result = *got;
}

static void ask(enum manner how, unsigned timeout_ms) {
    struct ntp *ntp = NULL;
    manner = how;
    heard = 0;
    outcome = NEVER;
    CHECK_EQ(
        ntp_ask(&loop, (struct sockaddr *)&server_address, 4, timeout_ms, on_result, NULL, &ntp),
        0);
    while (outcome == NEVER)
        uv_run(&loop, UV_RUN_ONCE);
}

static void an_honest_server_is_asked_four_times(void) {
    ask(HONEST, 2000);
    CHECK_EQ(outcome, 0);
    CHECK_EQ(result.samples, 4);
    CHECK_EQ(heard, 4);
    CHECK_EQ(result.stratum, 2);
    CHECK_EQ(result.worth, NTP_GOOD);
    CHECK(result.delay_ns >= 0 && result.delay_ns < 100 * MS);
    int64_t off = llabs(result.view.offset_ns - SHIFT_NS);
    CHECK(off <= result.view.error_ns && result.view.error_ns < 100 * MS);
    CHECK(result.view.error_ns >= result.delay_ns / 2);
}

static void a_lost_request_is_sent_again(void) {
    int64_t start = clock_steady_ns();
    ask(FIRST_IS_LOST, 3000);
    int64_t ms = (clock_steady_ns() - start) / MS;
    CHECK_EQ(outcome, 0);
    CHECK_EQ(result.samples, 4);
    CHECK_EQ(heard, 5);
    CHECK(ms >= NTP_WAIT_MS - 5 && ms < 1200);
}

static void one_answer_is_enough(void) {
    int64_t start = clock_steady_ns();
    ask(ONCE, 3000);
    CHECK_EQ(outcome, 0);
    CHECK_EQ(result.samples, 1);
    CHECK((clock_steady_ns() - start) / MS < 1000);
    ask(REFUSES_LATER, 3000);
    CHECK_EQ(outcome, 0);
    CHECK_EQ(result.samples, 1);
    CHECK_EQ(result.worth, NTP_REFUSAL);
}

static void silence_ends_with_the_timeout(void) {
    int64_t start = clock_steady_ns();
    ask(SILENT, 100);
    CHECK_EQ(outcome, UV_ETIMEDOUT);
    CHECK((clock_steady_ns() - start) / MS < 600);
}

static void foreign_answers_are_passed_over(void) {
    static const enum manner cases[] = {FOREIGN_NONCE, NO_NONCE, SHORT, OTHER_PORT};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ask(cases[i], 100);
        CHECK_EQ(outcome, UV_ETIMEDOUT);
        CHECK_EQ(heard, 1);
    }
}

static void an_answer_counts_once(void) {
    ask(REPEATS, 1000);
    CHECK_EQ(outcome, 0);
    CHECK_EQ(result.samples, 4);
    CHECK_EQ(heard, 4);
}

static void who_has_no_time_is_told(void) {
    ask(REFUSES, 1000);
    CHECK_EQ(outcome, UV_EPROTO);
    CHECK_EQ(result.worth, NTP_REFUSAL);
    CHECK_TEXT(result.kiss, "RATE");
    CHECK_EQ(heard, 1);
    ask(UNSYNCHRONIZED, 1000);
    CHECK_EQ(outcome, UV_EPROTO);
    CHECK_EQ(result.worth, NTP_NO_TIME);
    ask(CLAIMS_TO_BE_SLOW, 1000);
    CHECK_EQ(outcome, UV_EPROTO);
    CHECK_EQ(result.worth, NTP_NONSENSE);
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
    ask(HONEST, 3000);
    CHECK_EQ(outcome, UV_ECONNREFUSED);
    server_address = saved;
}

static void nothing_comes_after_cancel(void) {
    struct ntp *ntp = NULL;
    manner = HONEST;
    outcome = NEVER;
    heard = 0;
    CHECK_EQ(ntp_ask(&loop, (struct sockaddr *)&server_address, 4, 100, on_result, NULL, &ntp), 0);
    ntp_cancel(ntp);
    while (heard == 0)
        uv_run(&loop, UV_RUN_ONCE);
    for (int i = 0; i < 10; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    CHECK_EQ(outcome, NEVER);
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
    RUN(an_honest_server_is_asked_four_times);
    RUN(a_lost_request_is_sent_again);
    RUN(one_answer_is_enough);
    RUN(silence_ends_with_the_timeout);
    RUN(foreign_answers_are_passed_over);
    RUN(an_answer_counts_once);
    RUN(who_has_no_time_is_told);
    RUN(nobody_is_there);
    RUN(nothing_comes_after_cancel);
    uv_close((uv_handle_t *)&server, NULL);
    uv_close((uv_handle_t *)&impostor, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    int left = uv_loop_close(&loop);
    if (left != 0)
        printf("handles were left open\n");
    return check_report() || left != 0;
}
