/* A puncher and what may come to it, over loopback; with the thread sanitizer, its two threads. */
#include "core/err.h"
#include "core/punch.h"
#include "spec/c/until.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define NOBODY 9 /* a port where nobody listens */
#define MS 1000000u
#define FULL_SHOTS 8

static struct ip ip_of(const char *text) {
    struct ip ip = {0};
    CHECK_EQ(ip_parse(text, strlen(text), &ip), 0);
    return ip;
}

static struct puncher *open_one(unsigned sockets, unsigned syns) {
    struct punch_options options = {.remote = ip_of("127.0.0.1"), .sockets = sockets, .syns = syns};
    struct puncher *puncher = NULL;
    CHECK_EQ(punch_open(&loop, &options, &puncher), 0);
    return puncher;
}

static struct punch_seen *look(struct puncher *puncher) {
    static struct punch_seen seen;
    punch_seen(puncher, &seen);
    return &seen;
}

static unsigned count_of(struct puncher *puncher, enum punch_kind kind) {
    return look(puncher)->counts[kind];
}

static int fire(struct puncher *puncher, const struct punch_shot *shots, size_t count,
                unsigned revive) {
    struct punch_volley volley = {
        .shots = shots, .count = count, .revive = revive, .revive_gap_ns = MS};
    return punch_fire(puncher, &volley);
}

static int fire_many(struct puncher *puncher, struct punch_shot shot, size_t count,
                     unsigned revive) {
    struct punch_shot *shots = calloc(count, sizeof *shots);
    for (size_t i = 0; i < count; i++)
        shots[i] = shot;
    int status = fire(puncher, shots, count, revive);
    free(shots);
    return status;
}

/* Closes it, and lets the loop forget it. */
static void close_one(struct puncher *puncher) {
    punch_close(puncher);
    while (uv_run(&loop, UV_RUN_NOWAIT))
        continue;
}

static int news, news_count;

static void on_news(void *arg, int status) {
    (void)arg;
    news = status;
    news_count++;
}

static bool is_closed(int fd) {
    char byte;
    return recv(fd, &byte, 1, MSG_DONTWAIT) == 0 || errno == ECONNRESET;
}

/* A socket that is connected to the port, from an address. */
static int visit(const char *from, uint16_t port) {
    struct sockaddr_in local = {.sin_family = AF_INET}, remote = local;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    inet_pton(AF_INET, from, &local.sin_addr);
    inet_pton(AF_INET, "127.0.0.1", &remote.sin_addr);
    remote.sin_port = htons(port);
    CHECK_EQ(bind(fd, (struct sockaddr *)&local, sizeof local), 0);
    CHECK_EQ(connect(fd, (struct sockaddr *)&remote, sizeof remote), 0);
    return fd;
}

/* ---- cases ---- */

static void holes_are_told_once_and_taken_in_order(void) {
    struct puncher *near = open_one(0, 0), *far = open_one(0, 0);
    struct punch_hole hole, other;
    uint16_t port = 0, again = 0;
    CHECK_EQ(punch_next(near, &hole), UV_EAGAIN);
    CHECK_EQ(punch_listen(far, 0, &port), 0);
    CHECK_EQ(punch_listen(far, port, &again), 0);
    CHECK_EQ(again, port);
    CHECK_EQ(look(far)->listening, 1);
    news_count = 0;
    punch_on_news(near, on_news, NULL);
    struct punch_shot shots[] = {{.remote_port = port, .after_ns = 20 * MS},
                                 {.remote_port = port, .after_ns = MS}};
    CHECK_EQ(fire(near, shots, 2, 0), 0);
    CHECK_EQ(news_count, 0);
    UNTIL(news_count == 1);
    CHECK_EQ(news, 0);
    CHECK_EQ(punch_next(near, &hole), 0);
    CHECK(!hole.accepted && hole.remote_port == port && hole.local_port != 0);
    CHECK(ip_equal(&hole.remote, &hole.local));
    CHECK(hole.at_ns - look(near)->begun_ns >= MS);
    CHECK_EQ(punch_next(near, &other), UV_EAGAIN);
    int status = UV_EAGAIN;
    UNTIL(status == 0 || (status = punch_next(far, &other)) == 0);
    CHECK(other.accepted && other.remote_port == hole.local_port && other.local_port == port);
    CHECK_EQ(send(hole.fd, "x", 1, 0), 1);
    close(other.fd);
    UNTIL(is_closed(hole.fd));
    close(hole.fd);
    punch_on_news(near, on_news, NULL); /* the second one */
    UNTIL(news_count == 2);
    punch_on_news(far, on_news, NULL); /* is there already: told, but not inside the call */
    CHECK_EQ(news_count, 2);
    UNTIL(news_count == 3);
    close_one(near);
    close_one(far); /* closes the hole that nobody took */
}

static void news_can_be_taken_back(void) {
    struct puncher *puncher = open_one(0, 0);
    struct punch_shot shot = {.remote_port = NOBODY};
    news_count = 0;
    punch_on_news(puncher, on_news, NULL);
    CHECK_EQ(fire(puncher, &shot, 1, 0), 0);
    punch_on_news(puncher, NULL, NULL);
    UNTIL(look(puncher)->alive == 0);
    CHECK_EQ(uv_run(&loop, UV_RUN_NOWAIT), 0); /* nothing keeps the loop alive */
    CHECK_EQ(news_count, 0);
    struct punch_hole hole;
    CHECK_EQ(punch_next(puncher, &hole), UV_ECONNREFUSED);
    close_one(puncher);
}

static void the_end_is_news(void) {
    struct puncher *puncher = open_one(0, 0);
    struct punch_shot shot = {.remote_port = NOBODY};
    news_count = 0;
    punch_on_news(puncher, on_news, NULL);
    CHECK_EQ(fire(puncher, &shot, 1, 2), 0);
    UNTIL(news_count == 1);
    CHECK_EQ(news, UV_ECONNREFUSED);
    CHECK_EQ(count_of(puncher, PUNCH_sent), 3);
    CHECK_EQ(look(puncher)->revived, 2);
    close_one(puncher);
}

/* Shots at a host that does not answer: here, one whose queue of connections is full. */
static void silence_is_waited_for(void) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    int guests[3], server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    CHECK_EQ(bind(server, (struct sockaddr *)&address, size), 0);
    CHECK_EQ(listen(server, 0), 0);
    getsockname(server, (struct sockaddr *)&address, &size);
    for (int i = 0; i < 3; i++) {
        guests[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)!connect(guests[i], (struct sockaddr *)&address, size);
    }
    usleep(10000);
    struct puncher *puncher = open_one(4, 0);
    struct punch_shot shot = {.remote_port = ntohs(address.sin_port), .ttl = 3};
    CHECK_EQ(fire_many(puncher, shot, FULL_SHOTS, 5), 0);
    UNTIL(look(puncher)->alive == 4); /* the others were over the limit of sockets */
    CHECK_EQ(count_of(puncher, PUNCH_sent), 4);
    CHECK_EQ(count_of(puncher, PUNCH_failed), FULL_SHOTS - 4);
    CHECK_EQ(look(puncher)->failures[0].status, UV_EMFILE);
    punch_halt(puncher); /* what was sent goes on */
    usleep(10000);
    CHECK_EQ(look(puncher)->alive, 4);
    struct punch_hole hole;
    CHECK_EQ(punch_next(puncher, &hole), UV_EAGAIN);
    uint64_t before = uv_hrtime();
    punch_close(puncher);
    CHECK(uv_hrtime() - before < 500 * MS);
    while (uv_run(&loop, UV_RUN_NOWAIT))
        continue;
    for (int i = 0; i < 3; i++)
        close(guests[i]);
    close(server);
}

static void limits_hold(void) {
    struct puncher *puncher = open_one(3, 10);
    struct punch_shot shot = {.remote_port = NOBODY}, bad = {.remote_port = 0};
    struct punch_hole hole;
    CHECK_EQ(fire_many(puncher, shot, 11, 0), UV_ENOBUFS);
    CHECK_EQ(fire(puncher, &bad, 1, 0), UV_EINVAL);
    CHECK_EQ(fire(puncher, NULL, 0, 0), 0);
    CHECK_EQ(punch_next(puncher, &hole), UV_EAGAIN); /* nothing was fired */
    CHECK_EQ(fire_many(puncher, shot, 2, 1000), 0);
    UNTIL(look(puncher)->alive == 0);
    CHECK_EQ(count_of(puncher, PUNCH_sent), 10);
    CHECK(look(puncher)->withheld > 0);
    CHECK_EQ(fire(puncher, &shot, 1, 0), UV_ENOBUFS);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(punch_listen(puncher, 0, NULL), 0);
    CHECK_EQ(punch_listen(puncher, 0, NULL), UV_EMFILE);
    close_one(puncher);
}

static void strangers_and_crowds_are_shown_out(void) {
    struct puncher *puncher = open_one(0, 0);
    uint16_t port = 0;
    int fds[PUNCH_HOLES_MAX + 2];
    CHECK_EQ(punch_listen(puncher, 0, &port), 0);
    int stranger = visit("127.0.0.2", port);
    UNTIL(is_closed(stranger));
    close(stranger);
    CHECK_EQ(count_of(puncher, PUNCH_stranger), 1);
    for (int i = 0; i < PUNCH_HOLES_MAX + 2; i++)
        fds[i] = visit("127.0.0.1", port);
    UNTIL(count_of(puncher, PUNCH_crowded) == 2);
    CHECK_EQ(count_of(puncher, PUNCH_accepted), PUNCH_HOLES_MAX);
    struct punch_hole hole;
    CHECK_EQ(punch_next(puncher, &hole), 0);
    close(hole.fd);
    close_one(puncher);
    for (int i = 0; i < PUNCH_HOLES_MAX + 2; i++) {
        CHECK(is_closed(fds[i]));
        close(fds[i]);
    }
}

static void it_can_be_closed_at_any_time(void) {
    for (unsigned i = 0; i < 40; i++) {
        struct puncher *puncher = open_one(0, 0), *other = open_one(0, 0);
        struct punch_shot shot = {.listens = i % 2, .ttl = i % 3 ? 0 : 2};
        struct punch_hole hole;
        CHECK_EQ(punch_listen(other, 0, &shot.remote_port), 0);
        punch_on_news(puncher, on_news, NULL);
        CHECK_EQ(fire_many(puncher, shot, 60, 3), 0);
        shot.remote_port = NOBODY;
        CHECK_EQ(fire_many(puncher, shot, 60, 3), 0);
        usleep(i * 150);
        if (i % 5 == 0)
            punch_halt(puncher);
        if (punch_next(puncher, &hole) == 0)
            close(hole.fd);
        CHECK_EQ(punch_listen(puncher, 0, NULL), 0);
        CHECK_EQ(fire_many(puncher, shot, 60, 3), 0);
        look(puncher);
        uv_run(&loop, UV_RUN_NOWAIT);
        punch_close(puncher);
        close_one(other);
    }
}

static void what_cannot_be_is_refused(void) {
    struct puncher *puncher = NULL;
    struct punch_options options = {.remote = ip_of("127.0.0.1"), .local = ip_of("::1")};
    CHECK_EQ(punch_open(&loop, &options, &puncher), UV_EAFNOSUPPORT);
    options.local = ip_of("192.0.2.1");
    CHECK_EQ(punch_open(&loop, &options, &puncher), UV_EADDRNOTAVAIL);
    options.local = ip_of("127.0.0.1");
    options.device = "no device";
    CHECK_EQ(punch_open(&loop, &options, &puncher), UV_ENODEV);
    options = (struct punch_options){.remote = ip_of("239.0.0.1")};
    CHECK_EQ(punch_open(&loop, &options, &puncher), UV_EINVAL);
    CHECK(!puncher);
}

int main(void) {
    open_loop();
    RUN(holes_are_told_once_and_taken_in_order);
    RUN(news_can_be_taken_back);
    RUN(the_end_is_news);
    RUN(silence_is_waited_for);
    RUN(limits_hold);
    RUN(strangers_and_crowds_are_shown_out);
    RUN(it_can_be_closed_at_any_time);
    RUN(what_cannot_be_is_refused);
    CHECK_EQ(close_loop(), 0);
    return check_report();
}
