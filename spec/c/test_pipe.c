/* Two ends in one loop over loopback. Each case opens its own pipes and leaves nothing open. */
#include "core/err.h"
#include "core/loop.h"
#include "core/pipe.h"
#include "spec/c/until.h"

#include <arpa/inet.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#define NEVER 12345 /* a status that nothing returns: the callback has not come */

static struct tls_identity *alice, *bob;
static const uint8_t attempt[PIPE_ATTEMPT_SIZE] = "0123456789abcdef";
static const uint8_t token[PIPE_TOKEN_SIZE] = "a secret token..";
static uint8_t big[1 << 20];

struct side {
    struct pipe *pipe;
    int connected, greeted, secured, shut, drained;
    bool closed, inside;
    size_t got; /* bytes read */
    size_t sent;
    int end; /* what the last read returned */
    uint32_t sum;
    bool reads;
};

static int listening_socket(struct sockaddr_in *address) {
    const int on = 1;
    socklen_t size = sizeof *address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *address =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)address, size) != 0 || listen(fd, 8) != 0 ||
        getsockname(fd, (struct sockaddr *)address, &size) != 0) {
        perror("listen");
        exit(1);
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    return fd;
}

static void on_connected(void *arg, int status) {
    struct side *side = arg;
    CHECK(!side->inside);
    side->connected = status;
}

static void on_greeted(void *arg, int status) {
    struct side *side = arg;
    side->greeted = status;
}

static void on_secured(void *arg, int status) {
    struct side *side = arg;
    CHECK(!side->inside);
    side->secured = status;
}

static void on_shut(void *arg, int status) {
    struct side *side = arg;
    side->shut = status;
}

static void on_closed(void *arg, int status) {
    struct side *side = arg;
    (void)status;
    CHECK(!side->closed);
    side->closed = true;
}

static void side_init(struct side *side, struct tls_identity *identity) {
    *side = (struct side){
        .connected = NEVER, .greeted = NEVER, .secured = NEVER, .shut = NEVER, .drained = NEVER};
    CHECK_EQ(pipe_new(&loop, identity, &side->pipe), 0);
}

/* Connects the first by dialing, the second by accepting. */
static void connect_sides(struct side *dialer, struct side *acceptor) {
    struct sockaddr_in address;
    int fd = listening_socket(&address);
    side_init(dialer, alice);
    side_init(acceptor, bob);
    dialer->inside = true;
    CHECK_EQ(pipe_dial(dialer->pipe, (struct sockaddr *)&address, NULL, on_connected, dialer), 0);
    dialer->inside = false;
    UNTIL(dialer->connected != NEVER);
    CHECK_EQ(dialer->connected, 0);
    CHECK_EQ(pipe_adopt(acceptor->pipe, accept(fd, NULL, NULL)), 0);
    close(fd);
}

static void secure_sides(struct side *client, struct side *server, const uint8_t *client_expects,
                         const uint8_t *server_expects) {
    client->inside = server->inside = true;
    CHECK_EQ(pipe_secure(server->pipe, TLS_SERVER, server_expects, NULL, on_secured, server), 0);
    CHECK_EQ(pipe_secure(client->pipe, TLS_CLIENT, client_expects, NULL, on_secured, client), 0);
    client->inside = server->inside = false;
    UNTIL(client->secured != NEVER);
}

/* An open pipe with alice as the client and bob as the server. */
static void open_sides(struct side *client, struct side *server) {
    connect_sides(client, server);
    secure_sides(client, server, tls_identity_key(bob), tls_identity_key(alice));
    CHECK_EQ(client->secured, 0);
    CHECK_EQ(pipe_commit(client->pipe, attempt), 0);
    UNTIL(server->secured != NEVER);
    CHECK_EQ(server->secured, 0);
}

static void close_side(struct side *side) {
    pipe_abort(side->pipe, on_closed, side);
    UNTIL(side->closed);
}

static void close_sides(struct side *a, struct side *b) {
    close_side(a);
    close_side(b);
}

static uint32_t adler(uint32_t sum, const uint8_t *bytes, size_t length) {
    uint32_t a = sum & 0xffff, b = sum >> 16; /* RFC 1950, 8.2 */
    for (size_t i = 0; i < length; i++) {
        a = (a + bytes[i]) % 65521;
        b = (b + a) % 65521;
    }
    return b << 16 | a;
}

static void on_readable(void *arg, int status) {
    struct side *side = arg;
    static uint8_t buffer[100000];
    ssize_t n;
    (void)status;
    while ((n = pipe_read(side->pipe, buffer, sizeof buffer)) > 0) {
        side->got += (size_t)n;
        side->sum = adler(side->sum, buffer, (size_t)n);
    }
    side->end = (int)n;
    if (n == UV_EAGAIN)
        pipe_on_readable(side->pipe, on_readable, side);
}

static void read_all(struct side *side) {
    side->end = UV_EAGAIN;
    on_readable(side, 0);
}

/* ---- cases ---- */

static void both_keys_are_proven_and_bytes_pass(void) {
    struct side client, server;
    char text[32];
    open_sides(&client, &server);
    CHECK(memcmp(pipe_peer(client.pipe), tls_identity_key(bob), TLS_KEY_SIZE) == 0);
    CHECK(memcmp(pipe_peer(server.pipe), tls_identity_key(alice), TLS_KEY_SIZE) == 0);
    CHECK(memcmp(pipe_attempt(server.pipe), attempt, sizeof attempt) == 0);
    CHECK_EQ(pipe_state(client.pipe), PIPE_OPEN);
    CHECK_EQ(pipe_read(server.pipe, text, sizeof text), UV_EAGAIN);
    CHECK_EQ(pipe_write(client.pipe, "hello", 5), 0);
    read_all(&server);
    UNTIL(server.got == 5);
    CHECK_EQ(pipe_write(server.pipe, "welcome", 7), 0);
    read_all(&client);
    UNTIL(client.got == 7);
    close_sides(&client, &server);
}

static void a_server_waits_for_the_commit(void) {
    struct side client, server;
    connect_sides(&client, &server);
    secure_sides(&client, &server, NULL, NULL);
    CHECK_EQ(client.secured, 0);
    CHECK_EQ(pipe_write(client.pipe, "x", 1), UV_EINVAL); /* nothing may go before it */
    for (int i = 0; i < 20; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    CHECK_EQ(server.secured, NEVER);
    CHECK(pipe_attempt(server.pipe) == NULL);
    CHECK_EQ(pipe_commit(client.pipe, attempt), 0);
    CHECK_EQ(pipe_commit(client.pipe, attempt), UV_EINVAL);
    UNTIL(server.secured == 0);
    close_sides(&client, &server);
}

static void a_loser_says_goodbye(void) {
    struct side client, server;
    connect_sides(&client, &server);
    secure_sides(&client, &server, NULL, NULL);
    pipe_close(client.pipe, on_closed, &client);
    UNTIL(server.secured != NEVER);
    CHECK_EQ(server.secured, ERR_ELOST);
    close_side(&server);
    UNTIL(client.closed);
}

static void a_client_refuses_another_key(void) {
    struct side client, server;
    connect_sides(&client, &server);
    secure_sides(&client, &server, tls_identity_key(alice), NULL);
    CHECK_EQ(client.secured, ERR_EPEER);
    CHECK(memcmp(pipe_peer(client.pipe), tls_identity_key(bob), TLS_KEY_SIZE) == 0);
    UNTIL(server.secured != NEVER);
    CHECK_EQ(server.secured, ERR_EPEER);
    CHECK(pipe_peer(server.pipe) == NULL); /* the client has not told who it is */
    CHECK_EQ(pipe_write(client.pipe, "x", 1), ERR_EPEER);
    close_sides(&client, &server);
}

static void a_server_refuses_another_key(void) {
    struct side client, server;
    connect_sides(&client, &server);
    secure_sides(&client, &server, NULL, tls_identity_key(bob));
    UNTIL(server.secured != NEVER);
    CHECK_EQ(server.secured, ERR_EPEER);
    CHECK_EQ(client.secured, 0); /* TLS 1.3: the client is done before the server has judged */
    read_all(&client);
    UNTIL(client.end != UV_EAGAIN);
    CHECK_EQ(client.end, ERR_EPEER);
    close_sides(&client, &server);
}

static void on_hello(void *arg, int status) {
    struct side *side = arg;
    side->greeted = status;
    CHECK_EQ(pipe_secure(side->pipe, TLS_SERVER, NULL, NULL, on_secured, side), 0);
}

static void an_acceptor_tells_tls_from_a_preface(void) {
    struct side dialer, acceptor;
    connect_sides(&dialer, &acceptor);
    CHECK_EQ(pipe_greet(acceptor.pipe, on_hello, &acceptor), 0);
    CHECK_EQ(pipe_secure(dialer.pipe, TLS_CLIENT, NULL, NULL, on_secured, &dialer), 0);
    UNTIL(dialer.secured == 0);
    CHECK_EQ(acceptor.greeted, PIPE_HELLO);
    close_sides(&dialer, &acceptor);

    connect_sides(&dialer, &acceptor);
    CHECK_EQ(pipe_greet(acceptor.pipe, on_greeted, &acceptor), 0);
    CHECK_EQ(
        pipe_secure(dialer.pipe, TLS_SERVER, tls_identity_key(bob), token, on_secured, &dialer), 0);
    UNTIL(acceptor.greeted != NEVER);
    CHECK_EQ(acceptor.greeted, PIPE_PREFACE);
    CHECK(memcmp(pipe_token(acceptor.pipe), token, sizeof token) == 0);
    CHECK_EQ(pipe_secure(acceptor.pipe, TLS_CLIENT, tls_identity_key(alice), NULL, on_secured,
                         &acceptor),
             0);
    UNTIL(acceptor.secured == 0);
    CHECK_EQ(pipe_commit(acceptor.pipe, attempt), 0);
    UNTIL(dialer.secured == 0);
    close_sides(&dialer, &acceptor);
}

/* What a stranger sends to an acceptor, and what comes of it. */
static void stranger(const void *bytes, size_t length, bool ends, int wanted) {
    struct sockaddr_in address;
    struct side acceptor;
    int listening = listening_socket(&address), fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK_EQ(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    side_init(&acceptor, bob);
    CHECK_EQ(pipe_adopt(acceptor.pipe, accept(listening, NULL, NULL)), 0);
    CHECK_EQ(pipe_greet(acceptor.pipe, on_hello, &acceptor), 0);
    CHECK_EQ(send(fd, bytes, length, MSG_NOSIGNAL), (ssize_t)length);
    if (ends)
        shutdown(fd, SHUT_WR);
    if (wanted == NEVER) {
        for (int i = 0; i < 20; i++)
            uv_run(&loop, UV_RUN_NOWAIT);
        CHECK_EQ(acceptor.secured, NEVER);
    } else {
        UNTIL(acceptor.secured != NEVER || (acceptor.greeted != NEVER && acceptor.greeted < 0));
        CHECK_EQ(acceptor.greeted < 0 ? acceptor.greeted : acceptor.secured, wanted);
    }
    close_side(&acceptor);
    close(fd);
    close(listening);
}

static void on_any_greeting(void *arg, int status) {
    struct side *side = arg;
    side->greeted = status;
    if (status == PIPE_HELLO)
        CHECK_EQ(pipe_secure(side->pipe, TLS_SERVER, NULL, NULL, on_secured, side), 0);
}

static void garbage_is_refused(void) {
    /* a record header that promises 512 bytes of handshake */
    static const uint8_t half[] = {0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3};
    static uint8_t noise[4000] = {0x16, 3, 1, 0x0f, 0x9b};
    for (size_t i = 5; i < sizeof noise; i++)
        noise[i] = (uint8_t)(i * 167 + i / 256);
    stranger(half, sizeof half, true, UV_ECONNRESET);
    stranger(half, sizeof half, false, NEVER);
    stranger(noise, sizeof noise, false, ERR_ETLS);
}

static void what_is_no_hello_is_refused(void) {
    struct sockaddr_in address;
    static const struct {
        const char *bytes;
        size_t length;
        int wanted;
    } cases[] = {{"GET / HTTP/1.1\r\n\r\n", 18, ERR_EFORMAT},
                 {"P\2", 2, ERR_EFORMAT},
                 {"P\1short", 7, UV_ECONNRESET},
                 {"", 0, UV_ECONNRESET},
                 {"P", 1, UV_ECONNRESET},
                 {"\0", 1, ERR_EFORMAT}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct side acceptor;
        int listening = listening_socket(&address), fd = socket(AF_INET, SOCK_STREAM, 0);
        CHECK_EQ(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
        side_init(&acceptor, bob);
        CHECK_EQ(pipe_adopt(acceptor.pipe, accept(listening, NULL, NULL)), 0);
        CHECK_EQ(pipe_greet(acceptor.pipe, on_any_greeting, &acceptor), 0);
        CHECK_EQ(send(fd, cases[i].bytes, cases[i].length, 0), (ssize_t)cases[i].length);
        shutdown(fd, SHUT_WR);
        UNTIL(acceptor.greeted != NEVER);
        CHECK_EQ(acceptor.greeted, cases[i].wanted);
        close_side(&acceptor);
        close(fd);
        close(listening);
    }
}

static void nobody_listens(void) {
    struct sockaddr_in address;
    struct side dialer;
    close(listening_socket(&address));
    side_init(&dialer, alice);
    CHECK_EQ(pipe_dial(dialer.pipe, (struct sockaddr *)&address, NULL, on_connected, &dialer), 0);
    UNTIL(dialer.connected != NEVER);
    CHECK_EQ(dialer.connected, UV_ECONNREFUSED);
    CHECK_EQ(pipe_state(dialer.pipe), PIPE_FAILED);
    close_side(&dialer);
}

static void a_dialer_shares_a_listeners_port(void) {
    struct sockaddr_in there, here;
    struct sockaddr_storage local;
    struct side dialer;
    int remote = listening_socket(&there), own = listening_socket(&here);
    side_init(&dialer, alice);
    CHECK_EQ(pipe_dial(dialer.pipe, (struct sockaddr *)&there, (struct sockaddr *)&here,
                       on_connected, &dialer),
             0);
    UNTIL(dialer.connected != NEVER);
    CHECK_EQ(dialer.connected, 0);
    CHECK_EQ(pipe_local(dialer.pipe, &local), 0);
    CHECK_EQ(((struct sockaddr_in *)&local)->sin_port, here.sin_port);
    close_side(&dialer);
    close(remote);
    close(own);
}

static void nothing_comes_after_abort(void) {
    struct sockaddr_in address;
    struct side a, b;
    int fd = listening_socket(&address);
    side_init(&a, alice);
    CHECK_EQ(pipe_dial(a.pipe, (struct sockaddr *)&address, NULL, on_connected, &a), 0);
    close_side(&a);
    CHECK_EQ(a.connected, NEVER);
    close(fd);
    connect_sides(&a, &b);
    CHECK_EQ(pipe_secure(a.pipe, TLS_CLIENT, NULL, NULL, on_secured, &a), 0);
    CHECK_EQ(pipe_secure(b.pipe, TLS_SERVER, NULL, NULL, on_secured, &b), 0);
    close_sides(&a, &b);
    CHECK_EQ(a.secured, NEVER);
    CHECK_EQ(b.secured, NEVER);
}

static void closing_twice_is_closing_once(void) {
    struct side a, b;
    open_sides(&a, &b);
    pipe_close(a.pipe, on_closed, &a);
    pipe_close(a.pipe, on_closed, &a);
    CHECK_EQ(pipe_write(a.pipe, "x", 1), ERR_ECLOSED);
    CHECK_EQ(pipe_read(a.pipe, big, 1), ERR_ECLOSED);
    CHECK_EQ(pipe_shutdown(a.pipe, on_shut, &a), ERR_ECLOSED);
    pipe_abort(a.pipe, on_closed, &a);
    pipe_abort(a.pipe, on_closed, &a);
    UNTIL(a.closed);
    CHECK_EQ(a.shut, NEVER);
    close_side(&b);
}

static void a_half_closed_pipe_still_reads(void) {
    struct side a, b;
    open_sides(&a, &b);
    CHECK_EQ(pipe_write(a.pipe, "question", 8), 0);
    CHECK_EQ(pipe_shutdown(a.pipe, on_shut, &a), 0);
    CHECK_EQ(pipe_write(a.pipe, "x", 1), UV_EPIPE);
    read_all(&b);
    UNTIL(b.end == UV_EOF);
    CHECK_EQ(b.got, 8);
    CHECK_EQ(a.shut, 0);
    CHECK_EQ(pipe_write(b.pipe, big, sizeof big), 0);
    pipe_close(b.pipe, on_closed, &b);
    read_all(&a);
    UNTIL(a.end == UV_EOF);
    CHECK_EQ(a.got, sizeof big);
    pipe_close(a.pipe, on_closed, &a);
    UNTIL(a.closed && b.closed);
}

static void a_cut_is_no_end(void) {
    struct side a, b;
    open_sides(&a, &b);
    CHECK_EQ(pipe_write(a.pipe, "some", 4), 0);
    close_side(&a); /* a FIN without a goodbye */
    read_all(&b);
    UNTIL(b.end != UV_EAGAIN);
    CHECK_EQ(b.got, 4);
    CHECK_EQ(b.end, UV_ECONNRESET);
    close_side(&b);
}

static void a_reset_breaks_both_directions(void) {
    struct side a, b;
    open_sides(&a, &b);
    CHECK_EQ(pipe_write(b.pipe, big, sizeof big), 0); /* unread, so that closing answers with RST */
    for (int i = 0; i < 10; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    close_side(&a);
    read_all(&b);
    UNTIL(b.end != UV_EAGAIN);
    CHECK_EQ(b.end, UV_ECONNRESET);
    int status = 0;
    for (int i = 0; i < 10 && status == 0; i++) {
        status = pipe_write(b.pipe, big, 1000);
        uv_run(&loop, UV_RUN_NOWAIT);
    }
    CHECK(status == UV_EPIPE || status == UV_ECONNRESET);
    close_side(&b);
}

static void closing_delivers_what_was_accepted(void) {
    struct side a, b;
    uint32_t sum = 0;
    open_sides(&a, &b);
    for (int i = 0; i < 16; i++) {
        CHECK_EQ(pipe_write(a.pipe, big, sizeof big), 0);
        sum = adler(sum, big, sizeof big);
    }
    CHECK(pipe_queued(a.pipe) > 0);
    CHECK_EQ(pipe_write(b.pipe, big, 100000), 0); /* which nobody will read */
    pipe_close(a.pipe, on_closed, &a);
    for (int i = 0; i < 10; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    read_all(&b);
    UNTIL(b.end != UV_EAGAIN);
    CHECK_EQ(b.end, UV_EOF);
    CHECK_EQ(b.got, 16 * sizeof big);
    CHECK(b.sum == sum);
    pipe_close(b.pipe, on_closed, &b);
    UNTIL(a.closed && b.closed);
}

static void closing_to_a_silent_peer_is_quick(void) {
    struct side a, b;
    open_sides(&a, &b);
    CHECK_EQ(pipe_write(a.pipe, "bye", 3), 0);
    uint64_t start = uv_hrtime();
    pipe_close(a.pipe, on_closed, &a);
    UNTIL(a.closed);
    CHECK(uv_hrtime() - start < 2000000000u);
    read_all(&b);
    UNTIL(b.end == UV_EOF);
    CHECK_EQ(b.got, 3);
    close_side(&b);
}

static void send_some(void *arg, int status) {
    struct side *side = arg;
    side->drained = status;
    while (status == 0 && side->sent < 48 * sizeof big) {
        if (pipe_queued(side->pipe) > PIPE_HIGH_WATER) {
            pipe_on_drained(side->pipe, send_some, side);
            return;
        }
        status = pipe_write(side->pipe, big + side->sent % sizeof big, 65536);
        side->sent += 65536;
    }
    pipe_shutdown(side->pipe, NULL, NULL);
}

/* Writes more than the low-water mark, but not so much that it leaves before it returns. */
static void send_what_is_held_back(void *arg, int status) {
    struct side *side = arg;
    CHECK_EQ(status, 0);
    if (side->sent == 20 * 100000)
        return;
    CHECK_EQ(pipe_write(side->pipe, big, 100000), 0);
    side->sent += 100000;
    CHECK(pipe_queued(side->pipe) > PIPE_LOW_WATER);
    pipe_on_drained(side->pipe, send_what_is_held_back, side);
}

static void a_writer_hears_of_what_left_when_its_callback_returned(void) {
    struct side a, b;
    open_sides(&a, &b);
    read_all(&b);
    pipe_on_drained(a.pipe, send_what_is_held_back, &a);
    UNTIL(b.got == 20 * 100000);
    close_sides(&a, &b);
}

static struct side *little;
static void read_a_little(uv_timer_t *timer) {
    static uint8_t buffer[300000];
    ssize_t n = pipe_read(little->pipe, buffer, sizeof buffer);
    (void)timer;
    if (n > 0) {
        little->got += (size_t)n;
        little->sum = adler(little->sum, buffer, (size_t)n);
    } else {
        little->end = (int)n;
    }
}

static long resident_kib(void) {
    long total = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file && fscanf(file, "%ld %ld", &total, &resident) == 2);
    if (file)
        fclose(file);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static void a_slow_reader_costs_no_memory(void) {
    struct side a, b;
    uv_timer_t timer;
    uint32_t sum = 0;
    open_sides(&a, &b);
    uv_timer_init(&loop, &timer);
    little = &b;
    long before = resident_kib(), most = 0;
    send_some(&a, 0);
    for (int i = 0; i < 50; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    CHECK(pipe_queued(a.pipe) < 2 * PIPE_HIGH_WATER);
    CHECK(a.sent < 48 * sizeof big);
    uv_timer_start(&timer, read_a_little, 1, 1);
    while (b.end == 0 || b.end == UV_EAGAIN) {
        uv_run(&loop, UV_RUN_ONCE);
        long now = resident_kib() - before;
        most = now > most ? now : most;
    }
    CHECK_EQ(b.end, UV_EOF);
    CHECK_EQ(b.got, 48 * sizeof big);
    for (size_t at = 0; at < 48 * sizeof big; at += 65536)
        sum = adler(sum, big + at % sizeof big, 65536);
    CHECK(sum == b.sum);
    if (!SANITIZED) /* which keeps freed memory for a while */
        CHECK(most < 4096);
    CHECK_EQ(a.drained, 0);
    uv_close((uv_handle_t *)&timer, NULL);
    close_sides(&a, &b);
}

static void on_secured_and_speak(void *arg, int status) {
    struct side *side = arg;
    side->secured = status;
    CHECK_EQ(pipe_commit(side->pipe, attempt), 0);
    CHECK_EQ(pipe_write(side->pipe, "first", 5), 0);
    CHECK(pipe_queued(side->pipe) > 0); /* it leaves together with the end of the handshake */
}

static void the_first_words_leave_with_the_handshake(void) {
    struct side a, b;
    connect_sides(&a, &b);
    CHECK_EQ(pipe_secure(b.pipe, TLS_SERVER, NULL, NULL, on_secured, &b), 0);
    CHECK_EQ(pipe_secure(a.pipe, TLS_CLIENT, NULL, NULL, on_secured_and_speak, &a), 0);
    UNTIL(b.secured == 0);
    CHECK_EQ(pipe_queued(a.pipe), 0);
    CHECK_EQ(pipe_read(b.pipe, big + 1000000, 10), 5); /* came in the same read */
    close_sides(&a, &b);
}

static void ready(void *arg, int status) {
    (void)status;
    ++*(int *)arg;
}

static void notices_come_once_and_can_be_taken_back(void) {
    struct side a, b;
    int readable = 0, drained = 0;
    open_sides(&a, &b);
    pipe_on_readable(b.pipe, ready, &readable);
    CHECK_EQ(pipe_write(a.pipe, "12345", 5), 0);
    UNTIL(readable == 1);
    pipe_on_readable(b.pipe, ready, &readable); /* it was not read: told again, but not inside */
    CHECK_EQ(readable, 1);
    UNTIL(readable == 2);
    pipe_on_readable(b.pipe, ready, &readable);
    pipe_on_readable(b.pipe, NULL, NULL);
    pipe_on_drained(a.pipe, ready, &drained);
    CHECK_EQ(drained, 0);
    UNTIL(drained == 1);
    for (int i = 0; i < 10; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    CHECK_EQ(readable, 2);
    CHECK_EQ(drained, 1);
    CHECK_EQ(pipe_read(b.pipe, big + 1000000, 3), 3);
    CHECK_EQ(pipe_read(b.pipe, big + 1000000, 10), 2);
    close_sides(&a, &b);
}

static void an_idle_peer_is_no_reason_to_wake(void) {
    struct side a, b;
    open_sides(&a, &b);
    read_all(&a);
    read_all(&b);
    uv_update_time(&loop);
    CHECK_EQ(uv_backend_timeout(&loop), -1);
    close_sides(&a, &b);
}

int main(void) {
    EVP_PKEY *first = EVP_EC_gen("P-256"), *second = EVP_EC_gen("P-256"),
             *other = EVP_EC_gen("P-384");
    open_loop();
    CHECK_EQ(tls_identity_new(other, &alice), UV_EINVAL);
    CHECK_EQ(tls_identity_new(first, &alice), 0);
    CHECK_EQ(tls_identity_new(second, &bob), 0);
    EVP_PKEY_free(first);
    EVP_PKEY_free(second);
    EVP_PKEY_free(other);
    for (size_t i = 0; i < sizeof big; i++)
        big[i] = (uint8_t)(i * 2654435761u >> 13);
    RUN(both_keys_are_proven_and_bytes_pass);
    RUN(a_server_waits_for_the_commit);
    RUN(a_loser_says_goodbye);
    RUN(a_client_refuses_another_key);
    RUN(a_server_refuses_another_key);
    RUN(an_acceptor_tells_tls_from_a_preface);
    RUN(garbage_is_refused);
    RUN(what_is_no_hello_is_refused);
    RUN(nobody_listens);
    RUN(a_dialer_shares_a_listeners_port);
    RUN(nothing_comes_after_abort);
    RUN(closing_twice_is_closing_once);
    RUN(a_half_closed_pipe_still_reads);
    RUN(a_cut_is_no_end);
    RUN(a_reset_breaks_both_directions);
    RUN(closing_delivers_what_was_accepted);
    RUN(closing_to_a_silent_peer_is_quick);
    RUN(a_writer_hears_of_what_left_when_its_callback_returned);
    RUN(a_slow_reader_costs_no_memory);
    RUN(the_first_words_leave_with_the_handshake);
    RUN(notices_come_once_and_can_be_taken_back);
    RUN(an_idle_peer_is_no_reason_to_wake);
    tls_identity_drop(alice);
    tls_identity_drop(bob);
    int left = close_loop();
    if (left != 0)
        printf("handles were left open\n");
    return check_report() || left != 0;
}
