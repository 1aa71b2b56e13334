/* One listener, peers and strangers, over loopback. */
#include "core/err.h"
#include "core/listener.h"
#include "core/loop.h"
#include "spec/c/until.h"

#include <arpa/inet.h>
#include <openssl/evp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define NEVER 12345

static struct tls_identity *alice, *bob;
static const uint8_t attempt[PIPE_ATTEMPT_SIZE] = "0123456789abcdef";
static const uint8_t token[PIPE_TOKEN_SIZE] = "a secret token..";

static struct listener_stats stats_of(const struct listener *listener) {
    struct listener_stats stats;
    listener_stats(listener, &stats);
    return stats;
}

static struct sockaddr_in ipv4(const char *ip, int port) {
    struct sockaddr_in address;
    uv_ip4_addr(ip, port, &address);
    return address;
}

static struct listener *listen_on(const char *ip) {
    struct sockaddr_in address = ipv4(ip, 0);
    struct listener *listener = NULL;
    CHECK_EQ(listener_new(&loop, bob, (struct sockaddr *)&address, 0, &listener), 0);
    return listener;
}

static void on_flag(void *arg, int status) {
    (void)status;
    *(bool *)arg = true;
}

static void close_listener(struct listener *listener) {
    bool closed = false;
    listener_close(listener, on_flag, &closed);
    listener_close(listener, NULL, NULL);
    UNTIL(closed);
}

static void close_pipe(struct pipe *pipe) {
    bool closed = false;
    pipe_abort(pipe, on_flag, &closed);
    UNTIL(closed);
}

/* A peer that dials, proves its key and commits. */
struct peer {
    struct pipe *pipe;
    int status;
    const uint8_t *token; /* or, with a token, waits for the listener's side to do so */
};

static void on_peer_secured(void *arg, int status) {
    struct peer *peer = arg;
    peer->status = status;
    if (status == 0 && !peer->token)
        pipe_commit(peer->pipe, attempt);
}

static void on_peer_connected(void *arg, int status) {
    struct peer *peer = arg;
    if (status == 0)
        status = pipe_secure(peer->pipe, peer->token ? TLS_SERVER : TLS_CLIENT, NULL, peer->token,
                             on_peer_secured, peer);
    if (status != 0)
        peer->status = status;
}

static void peer_dial(struct peer *peer, const struct sockaddr *remote, const uint8_t *secret) {
    *peer = (struct peer){.status = NEVER, .token = secret};
    CHECK_EQ(pipe_new(&loop, alice, &peer->pipe), 0);
    CHECK_EQ(pipe_dial(peer->pipe, remote, NULL, on_peer_connected, peer), 0);
}

static void dial_listener(struct peer *peer, struct listener *listener, const uint8_t *secret) {
    struct sockaddr_in remote = ipv4("127.0.0.1", listener_port(listener));
    peer_dial(peer, (struct sockaddr *)&remote, secret);
}

static int stranger_from(struct listener *listener, const char *ip) {
    struct sockaddr_in remote = ipv4("127.0.0.1", listener_port(listener)), local = ipv4(ip, 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_EQ(bind(fd, (struct sockaddr *)&local, sizeof local), 0);
    CHECK_EQ(connect(fd, (struct sockaddr *)&remote, sizeof remote), 0);
    return fd;
}

static bool is_closed(int fd) {
    char byte;
    return recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) >= 0 || errno == ECONNRESET;
}

/* ---- cases ---- */

static void a_peer_arrives(void) {
    struct listener *listener = listen_on("127.0.0.1");
    struct peer peer;
    bool ready = false;
    CHECK(listener_accept(listener) == NULL);
    listener_on_pipe(listener, on_flag, &ready);
    dial_listener(&peer, listener, NULL);
    UNTIL(ready);
    ready = false;
    listener_on_pipe(listener, on_flag, &ready); /* it is still there: told again, but not inside */
    CHECK(!ready);
    UNTIL(ready);
    struct pipe *pipe = listener_accept(listener);
    CHECK(pipe && memcmp(pipe_attempt(pipe), attempt, sizeof attempt) == 0);
    CHECK(listener_accept(listener) == NULL);
    CHECK_EQ(stats_of(listener).unfinished, 0);
    close_pipe(pipe);
    close_pipe(peer.pipe);
    close_listener(listener);
}

static void both_families_share_the_port(void) {
    struct listener *listener = NULL;
    struct peer four, six;
    struct sockaddr_in6 loopback;
    CHECK_EQ(listener_new(&loop, bob, NULL, 0, &listener), 0);
    uv_ip6_addr("::1", listener_port(listener), &loopback);
    dial_listener(&four, listener, NULL);
    UNTIL(stats_of(listener).untaken == 1);
    peer_dial(&six, (struct sockaddr *)&loopback, NULL);
    UNTIL(stats_of(listener).untaken == 2 || six.status < 0);
    CHECK(six.status == 0 || six.status == UV_EADDRNOTAVAIL); /* where there is no IPv6 */
    close_pipe(four.pipe);
    close_pipe(six.pipe);
    close_listener(listener);
}

static void a_port_is_not_shared_with_another_listener(void) {
    struct listener *listener = listen_on("127.0.0.1"), *other = NULL;
    struct sockaddr_in same = ipv4("127.0.0.1", listener_port(listener));
    CHECK_EQ(listener_new(&loop, bob, (struct sockaddr *)&same, 0, &other), UV_EADDRINUSE);
    CHECK_EQ(listener_new(&loop, bob, NULL, listener_port(listener), &other), UV_EADDRINUSE);
    uint16_t port = listener_port(listener);
    struct peer peer;
    dial_listener(&peer, listener, NULL);
    UNTIL(stats_of(listener).untaken == 1);
    close_listener(listener);
    close_pipe(peer.pipe);
    same = ipv4("127.0.0.1", port); /* though the kernel still knows connections of it */
    CHECK_EQ(listener_new(&loop, bob, (struct sockaddr *)&same, 0, &other), 0);
    close_listener(other);
}

static void strangers_are_bounded_in_number(void) {
    struct listener *listener = listen_on("127.0.0.1");
    int strangers[40];
    listener_limit(listener, &(struct listener_limits){16, 4, 10000});
    int early = stranger_from(listener, "127.0.0.2");
    for (int i = 0; i < 40; i++)
        strangers[i] = stranger_from(listener, "127.0.0.1");
    UNTIL(stats_of(listener).accepted == 41);
    CHECK_EQ(stats_of(listener).unfinished, 16);
    CHECK_EQ(stats_of(listener).evicted, 25);
    UNTIL(is_closed(strangers[0])); /* the oldest of the crowd went, not the oldest of all */
    CHECK(!is_closed(early));
    CHECK(!is_closed(strangers[39]));
    close(early);
    for (int i = 0; i < 40; i++)
        close(strangers[i]);
    UNTIL(stats_of(listener).unfinished == 0);
    close_listener(listener);
}

static void strangers_are_bounded_in_time(void) {
    struct listener *listener = listen_on("127.0.0.1");
    static const uint8_t half[] = {0x16, 3, 1, 2, 0, 1};
    listener_limit(listener, &(struct listener_limits){16, 4, 300});
    int silent = stranger_from(listener, "127.0.0.1");
    int dripping = stranger_from(listener, "127.0.0.1");
    uint64_t start = uv_hrtime();
    size_t dripped = 0;
    while (stats_of(listener).expired < 2 && uv_hrtime() - start < 5000000000u) {
        uv_timer_start(&guard, on_guard, 50, 0);
        uv_run(&loop, UV_RUN_ONCE);
        if (dripped < sizeof half)
            (void)!send(dripping, half + dripped++, 1, MSG_NOSIGNAL);
    }
    CHECK_EQ(stats_of(listener).expired, 2);
    UNTIL(is_closed(silent) && is_closed(dripping));
    close(silent);
    close(dripping);
    close_listener(listener);
}

static void garbage_ends_at_once(void) {
    struct listener *listener = listen_on("127.0.0.1");
    int web = stranger_from(listener, "127.0.0.1"), odd = stranger_from(listener, "127.0.0.1");
    char noise[600];
    memset(noise, 0xa5, sizeof noise);
    noise[0] = 0x16;
    noise[3] = 0;
    CHECK_EQ(send(web, "GET / HTTP/1.0\r\n\r\n", 18, 0), 18);
    CHECK_EQ(send(odd, noise, sizeof noise, 0), sizeof noise);
    UNTIL(stats_of(listener).failed == 2);
    UNTIL(is_closed(web) && is_closed(odd));
    close(web);
    close(odd);
    close_listener(listener);
}

static void pipes_that_nobody_takes_are_bounded(void) {
    struct listener *listener = listen_on("127.0.0.1");
    struct peer peers[6];
    listener_limit(listener, &(struct listener_limits){16, 4, 10000});
    for (int i = 0; i < 6; i++) {
        dial_listener(&peers[i], listener, NULL);
        UNTIL(stats_of(listener).finished == (unsigned)i + 1);
    }
    CHECK_EQ(stats_of(listener).untaken, 4);
    char byte;
    UNTIL(pipe_read(peers[0].pipe, &byte, 1) == UV_ECONNRESET);
    CHECK_EQ(pipe_read(peers[5].pipe, &byte, 1), UV_EAGAIN);
    for (int i = 0; i < 6; i++)
        close_pipe(peers[i].pipe);
    close_listener(listener);
}

static void an_expected_peer_arrives(void) {
    struct listener *listener = listen_on("127.0.0.1");
    struct arrival *arrival = NULL, *again = NULL;
    struct peer peer, foreign, second;
    bool ready = false;
    static const uint8_t wrong[PIPE_TOKEN_SIZE] = "another token..";
    CHECK_EQ(listener_expect(listener, token, &arrival), 0);
    CHECK_EQ(listener_expect(listener, token, &again), UV_EEXIST);
    CHECK(arrival_take(arrival) == NULL);
    arrival_on_pipe(arrival, on_flag, &ready);
    dial_listener(&foreign, listener, wrong);
    dial_listener(&peer, listener, token);
    UNTIL(ready);
    UNTIL(stats_of(listener).unexpected == 1);
    UNTIL(foreign.status != NEVER);
    CHECK_EQ(foreign.status, UV_ECONNRESET);
    struct peer own = {.status = NEVER, .pipe = arrival_take(arrival)};
    CHECK(own.pipe != NULL);
    CHECK(arrival_take(arrival) == NULL);
    CHECK_EQ(
        pipe_secure(own.pipe, TLS_CLIENT, tls_identity_key(alice), NULL, on_peer_secured, &own), 0);
    UNTIL(own.status == 0 && peer.status == 0);
    dial_listener(&second, listener, token); /* nobody takes this one */
    UNTIL(stats_of(listener).unfinished == 1);
    uv_run(&loop, UV_RUN_NOWAIT);
    arrival_forget(arrival);
    UNTIL(second.status == UV_ECONNRESET);
    CHECK_EQ(stats_of(listener).untaken, 0); /* these never come out of accept */
    close_pipe(own.pipe);
    close_pipe(peer.pipe);
    close_pipe(foreign.pipe);
    close_pipe(second.pipe);
    close_listener(listener);
}

static void arrivals_outlive_their_listener(void) {
    struct listener *listener = listen_on("127.0.0.1");
    struct arrival *arrival = NULL, *many[LISTENER_ARRIVALS];
    struct peer peer;
    uint8_t secret[PIPE_TOKEN_SIZE] = {0};
    CHECK_EQ(listener_expect(listener, token, &arrival), 0);
    for (int i = 0; i < LISTENER_ARRIVALS - 1; i++) {
        secret[0] = (uint8_t)(i + 1);
        CHECK_EQ(listener_expect(listener, secret, &many[i]), 0);
    }
    secret[0] = 0;
    CHECK_EQ(listener_expect(listener, secret, &many[LISTENER_ARRIVALS - 1]), UV_ENOBUFS);
    dial_listener(&peer, listener, token);
    UNTIL(stats_of(listener).accepted == 1);
    close_listener(listener);
    CHECK(arrival_take(arrival) == NULL);
    arrival_forget(arrival);
    for (int i = 0; i < LISTENER_ARRIVALS - 1; i++)
        arrival_forget(many[i]);
    close_pipe(peer.pipe);
}

/* In another process: as many connections as descriptors allow, which say nothing. */
static pid_t flood_start(struct listener *listener, int wanted) {
    pid_t child = fork();
    if (child != 0)
        return child;
    struct sockaddr_in remote = ipv4("127.0.0.1", listener_port(listener));
    struct rlimit limit;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* it must not outlive a test that broke */
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    for (int i = 0; i < wanted; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&remote, sizeof remote) != 0)
            break;
    }
    pause();
    _exit(0);
}

static void a_good_peer_gets_through_a_flood(void) {
    struct listener *listener = listen_on("127.0.0.1");
    const unsigned wanted = 5000;
    double took_ms[20];
    pid_t child = flood_start(listener, (int)wanted);
    UNTIL(stats_of(listener).accepted >= wanted / 10);
    for (int i = 0; i < 20; i++) { /* while it goes on, and after it */
        struct peer peer;
        uint64_t start = uv_hrtime();
        unsigned long long finished = stats_of(listener).finished;
        dial_listener(&peer, listener, NULL);
        UNTIL(stats_of(listener).finished > finished);
        took_ms[i] = (double)(uv_hrtime() - start) / 1e6;
        close_pipe(listener_accept(listener));
        close_pipe(peer.pipe);
        if (i == 15)
            UNTIL(stats_of(listener).accepted >= wanted + 16); /* and the good ones so far */
    }
    CHECK(check_longest_but_one(took_ms, 20) < 200);
    CHECK(stats_of(listener).unfinished <= 512);
    CHECK(stats_of(listener).evicted >= wanted - 512);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    close_listener(listener);
}

static void running_out_of_descriptors_is_survived(void) {
    struct listener *listener = listen_on("127.0.0.1");
    struct rlimit before, few;
    int strangers[40], opened = 0;
    struct peer peer;
    uv_run(&loop, UV_RUN_NOWAIT);
    int next = dup(0);
    close(next);
    getrlimit(RLIMIT_NOFILE, &before);
    few = before;
    for (; opened < 20; opened++)
        strangers[opened] = stranger_from(listener, "127.0.0.1");
    few.rlim_cur = (rlim_t)next + 20 + 4; /* four more than the strangers hold */
    setrlimit(RLIMIT_NOFILE, &few);
    for (int i = 0; i < 50; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    setrlimit(RLIMIT_NOFILE, &before);
    CHECK(stats_of(listener).accepted < 20);
    for (int i = 0; i < opened; i++)
        close(strangers[i]);
    dial_listener(&peer, listener, NULL);
    UNTIL(stats_of(listener).finished == 1);
    close_pipe(peer.pipe);
    close_listener(listener);
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0); /* a child must not write our lines again */
    EVP_PKEY *first = EVP_EC_gen("P-256"), *second = EVP_EC_gen("P-256");
    open_loop();
    CHECK_EQ(tls_identity_new(first, &alice), 0);
    CHECK_EQ(tls_identity_new(second, &bob), 0);
    EVP_PKEY_free(first);
    EVP_PKEY_free(second);
    RUN(a_peer_arrives);
    RUN(both_families_share_the_port);
    RUN(a_port_is_not_shared_with_another_listener);
    RUN(strangers_are_bounded_in_number);
    RUN(strangers_are_bounded_in_time);
    RUN(garbage_ends_at_once);
    RUN(pipes_that_nobody_takes_are_bounded);
    RUN(an_expected_peer_arrives);
    RUN(arrivals_outlive_their_listener);
    RUN(a_good_peer_gets_through_a_flood);
    RUN(running_out_of_descriptors_is_survived);
    tls_identity_drop(alice);
    tls_identity_drop(bob);
    int left = close_loop();
    if (left != 0)
        printf("handles were left open\n");
    return check_report() || left != 0;
}
