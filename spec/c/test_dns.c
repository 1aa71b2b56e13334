/* Names to addresses: what hangs, what is given up, what comes late. The C library's resolver is
 * replaced by ours. */
#include "core/dns.h"

#include "core/err.h"
#include "core/loop.h"
#include "spec/c/check.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <strings.h>

#define GUARD_MS 5000

static uv_loop_t loop;
static atomic_int calls, hanging;
static sem_t release;

/* "hang…" waits until it is let go; "none" does not exist; "two" has one of each family, and one
 * twice. */
static struct addrinfo *entry(const char *text, struct addrinfo *next) {
    struct addrinfo *info = calloc(1, sizeof(*info) + sizeof(struct sockaddr_storage));
    struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)(info + 1);
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)(info + 1);
    info->ai_addr = (struct sockaddr *)(info + 1);
    info->ai_next = next;
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1)
        v4->sin_family = AF_INET;
    else if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1)
        v6->sin6_family = AF_INET6;
    info->ai_family = info->ai_addr->sa_family;
    return info;
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **out) {
    (void)service, (void)hints;
    calls++;
    if (strncasecmp(node, "hang", 4) == 0) {
        hanging++;
        while (sem_wait(&release))
            continue;
        hanging--;
    }
    if (strcmp(node, "none") == 0)
        return EAI_NONAME;
    if (strcmp(node, "later") == 0)
        return EAI_AGAIN;
    *out = strcmp(node, "empty") == 0
               ? NULL
               : entry("2001:db8::1", entry("192.0.2.7", entry("192.0.2.7", NULL)));
    return 0;
}

void freeaddrinfo(struct addrinfo *info) {
    for (struct addrinfo *next; info; info = next) {
        next = info->ai_next;
        free(info);
    }
}

struct ask {
    struct dns *dns;
    int done, status;
    size_t count;
    struct ip addresses[DNS_ADDRESSES_MAX];
    uint64_t ended_ns;
};

static void on_done(void *arg, int status, const struct ip *addresses, size_t count) {
    struct ask *ask = arg;
    ask->done++;
    ask->status = status;
    ask->count = count;
    memcpy(ask->addresses, addresses, count * sizeof(*addresses));
    ask->ended_ns = uv_hrtime();
}

static void ask_for(struct ask *ask, const char *host, unsigned timeout_ms) {
    CHECK_EQ(dns_resolve(&loop, host, timeout_ms, on_done, ask, &ask->dns), 0);
    CHECK_EQ(ask->done, 0);
}

/* Waits until a number that other threads count is what it should be. */
static void await(atomic_int *number, int wanted) {
    for (int i = 0; i < GUARD_MS && *number != wanted; i++)
        uv_sleep(1);
    CHECK_EQ(*number, wanted);
}

static void begin(void) {
    uv_loop_init(&loop);
    calls = 0;
}

static void end(void) {
    uv_run(&loop, UV_RUN_DEFAULT);
    CHECK_EQ(uv_loop_close(&loop), 0);
}

static void let_go(int count) {
    for (int i = 0; i < count; i++)
        sem_post(&release);
    await(&hanging, 0);
    uv_sleep(20); /* what comes late is freed */
}

static void both_families_in_their_order(void) {
    struct ask ask = {0};
    struct ip v4, v6;
    begin();
    ip_parse("192.0.2.7", 9, &v4);
    ip_parse("2001:db8::1", 11, &v6);
    ask_for(&ask, "two", 1000);
    uv_run(&loop, UV_RUN_DEFAULT);
    CHECK_EQ(ask.status, 0);
    CHECK_EQ(ask.count, 2);
    CHECK(ip_equal(&ask.addresses[0], &v6));
    CHECK(ip_equal(&ask.addresses[1], &v4));
    end();
}

static void addresses_are_not_looked_up(void) {
    static const char *const texts[] = {"192.0.2.7", "2001:db8::1", "::1"};
    begin();
    for (int i = 0; i < 3; i++) {
        struct ask ask = {0};
        char text[IP_TEXT_SIZE];
        ask_for(&ask, texts[i], 1000);
        uv_run(&loop, UV_RUN_DEFAULT);
        CHECK_EQ(ask.done, 1);
        CHECK_EQ(ask.count, 1);
        ip_format(&ask.addresses[0], text);
        CHECK_TEXT(text, texts[i]);
    }
    CHECK_EQ(calls, 0);
    end();
}

static void failures_have_their_names(void) {
    static const struct {
        const char *host;
        int status;
    } cases[] = {{"none", UV_EAI_NONAME}, {"later", UV_EAI_AGAIN}, {"empty", UV_EAI_NODATA}};
    begin();
    for (int i = 0; i < 3; i++) {
        struct ask ask = {0};
        ask_for(&ask, cases[i].host, 1000);
        uv_run(&loop, UV_RUN_DEFAULT);
        CHECK_EQ(ask.status, cases[i].status);
        CHECK_EQ(ask.count, 0);
    }
    struct ask ask = {0};
    char long_name[300];
    memset(long_name, 'a', sizeof(long_name) - 1);
    long_name[sizeof(long_name) - 1] = '\0';
    CHECK_EQ(dns_resolve(&loop, "", 1, on_done, &ask, &ask.dns), UV_EINVAL);
    CHECK_EQ(dns_resolve(&loop, long_name, 1, on_done, &ask, &ask.dns), UV_EINVAL);
    CHECK_EQ(ask.done, 0);
    end();
}

static void a_name_that_hangs_is_given_up(void) {
    struct ask ask = {0};
    begin();
    uint64_t begun = uv_hrtime();
    ask_for(&ask, "hang", 50);
    uv_run(&loop, UV_RUN_DEFAULT); /* it does not keep the loop alive either */
    CHECK_EQ(ask.status, UV_ETIMEDOUT);
    CHECK((ask.ended_ns - begun) / 1000000 < 500);
    await(&hanging, 1);
    let_go(1);
    CHECK_EQ(ask.done, 1);
    end();
}

static void a_name_that_hangs_takes_one_thread_however_often_it_is_asked_for(void) {
    struct ask asks[20];
    begin();
    memset(asks, 0, sizeof(asks));
    for (int i = 0; i < 20; i++)
        ask_for(&asks[i], i % 2 ? "hang" : "HANG", 2000);
    await(&hanging, 1);
    struct ask good = {0};
    ask_for(&good, "good", 1000);
    while (!good.done)
        uv_run(&loop, UV_RUN_ONCE);
    CHECK_EQ(good.status, 0);
    CHECK_EQ(calls, 2);
    let_go(1);
    uv_run(&loop, UV_RUN_DEFAULT);
    for (int i = 0; i < 20; i++) {
        CHECK_EQ(asks[i].done, 1);
        CHECK_EQ(asks[i].count, 2);
    }
    end();
}

static void the_number_of_threads_is_bounded(void) {
    struct ask asks[DNS_THREADS + 3];
    begin();
    memset(asks, 0, sizeof(asks));
    for (int i = 0; i < DNS_THREADS + 3; i++) {
        char host[16];
        snprintf(host, sizeof(host), "hang%d", i);
        ask_for(&asks[i], host, 200);
    }
    await(&hanging, DNS_THREADS);
    uv_run(&loop, UV_RUN_DEFAULT);
    for (int i = 0; i < DNS_THREADS + 3; i++)
        CHECK_EQ(asks[i].status, UV_ETIMEDOUT);
    CHECK_EQ(calls, DNS_THREADS); /* those that waited in vain are forgotten */
    let_go(DNS_THREADS);
    CHECK_EQ(calls, DNS_THREADS);
    struct ask good = {0};
    ask_for(&good, "good", 1000);
    uv_run(&loop, UV_RUN_DEFAULT);
    CHECK_EQ(good.status, 0);
    end();
}

static void it_may_be_cancelled_at_any_moment(void) {
    begin();
    for (int i = 0; i < 50; i++) {
        struct ask ask = {0};
        ask_for(&ask, i % 3 ? "good" : "192.0.2.1", 1000);
        if (i % 2)
            uv_sleep(1); /* the answer is there, and not delivered */
        dns_cancel(ask.dns);
        uv_run(&loop, UV_RUN_DEFAULT);
        CHECK_EQ(ask.done, 0);
    }
    struct ask ask = {0};
    ask_for(&ask, "hang", 1000);
    await(&hanging, 1);
    dns_cancel(ask.dns);
    let_go(1);
    uv_run(&loop, UV_RUN_DEFAULT);
    CHECK_EQ(ask.done, 0);
    end();
}

int main(void) {
    sem_init(&release, 0, 0);
    RUN(both_families_in_their_order);
    RUN(addresses_are_not_looked_up);
    RUN(failures_have_their_names);
    RUN(a_name_that_hangs_is_given_up);
    RUN(a_name_that_hangs_takes_one_thread_however_often_it_is_asked_for);
    RUN(the_number_of_threads_is_bounded);
    RUN(it_may_be_cancelled_at_any_moment);
    return check_report();
}
