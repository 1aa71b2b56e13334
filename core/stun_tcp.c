#include "core/stun_tcp.h"
#include "core/crypto.h"
#include "core/loop.h"
#include "core/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct stun_tcp {
    uv_tcp_t tcp;
    uv_timer_t limit;
    uv_connect_t connect;
    unsigned handles;
    bool closed, connected;
    bool asked; /* the open question was sent, and is to be answered */
    int broken; /* why it is of no use any more */
    struct stun_endpoint server;
    uint8_t request[STUN_QUERY_SIZE];
    uint64_t sent_ns;
    uint8_t input[STUN_TCP_MESSAGE_MAX];
    size_t filled;
    unsigned strays;
    stun_cb done; /* NULL when no question is open */
    void *arg;
};

void stun_tcp_cancel(struct stun_tcp *tcp) {
    tcp->done = NULL;
    uv_timer_stop(&tcp->limit);
    uv_unref((uv_handle_t *)&tcp->tcp);
}

static void finish(struct stun_tcp *tcp, int status, struct stun_result *result) {
    stun_cb done = tcp->done;
    if (!done)
        return;
    stun_tcp_cancel(tcp);
    result->from = tcp->server;
    result->requests = 1;
    done(tcp->arg, status, result);
}

static void break_off(struct stun_tcp *tcp, int status) {
    tcp->broken = status;
    uv_read_stop((uv_stream_t *)&tcp->tcp);
    finish(tcp, status, &(struct stun_result){0});
}

/* --- answers ------------------------------------------------------------------------------- */

static void on_message(struct stun_tcp *tcp, size_t length) {
    struct stun_msg answer;
    if (stun_msg_parse(tcp->input, length, &answer) != 0) {
        break_off(tcp, UV_EPROTO);
        return;
    }
    bool reply = answer.class == STUN_SUCCESS || answer.class == STUN_ERROR;
    if (!tcp->done || !tcp->asked || !reply || answer.method != STUN_BINDING ||
        memcmp(answer.id, tcp->request + 8, STUN_ID_SIZE) != 0) {
        if (++tcp->strays > STUN_TCP_STRAYS_MAX)
            break_off(tcp, UV_EPROTO);
        return;
    }
    struct stun_result result = {.rtt_us = (uv_hrtime() - tcp->sent_ns) / 1000};
    int status = stun_read_answer(&answer, &result);
    finish(tcp, status, &result);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer) {
    struct stun_tcp *tcp = container_of(handle, struct stun_tcp, tcp);
    (void)suggested;
    *buffer =
        uv_buf_init((char *)tcp->input + tcp->filled, (unsigned)(sizeof tcp->input - tcp->filled));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer) {
    struct stun_tcp *tcp = container_of(stream, struct stun_tcp, tcp);
    (void)buffer;
    if (n < 0) {
        break_off(tcp, n == UV_EOF ? UV_ECONNRESET : (int)n);
        return;
    }
    tcp->filled += (size_t)n;
    while (!tcp->closed && !tcp->broken && tcp->filled >= STUN_HEADER_SIZE) {
        size_t length = stun_msg_length(tcp->input);
        if (length == 0 || length > sizeof tcp->input) {
            break_off(tcp, UV_EPROTO);
            return;
        }
        if (length > tcp->filled)
            return;
        on_message(tcp, length);
        tcp->filled -= length;
        memmove(tcp->input, tcp->input + length, tcp->filled);
    }
}

/* --- questions ----------------------------------------------------------------------------- */

static void send_request(struct stun_tcp *tcp) {
    uint8_t id[STUN_ID_SIZE];
    crypto_random(id, sizeof id);
    size_t length = stun_msg_query(id, STUN_CHANGE_NONE, tcp->request);
    tcp->sent_ns = uv_hrtime();
    int status = stream_send((uv_stream_t *)&tcp->tcp, tcp->request, length);
    if (status != 0)
        break_off(tcp, status);
}

static void on_limit(uv_timer_t *timer) {
    struct stun_tcp *tcp = container_of(timer, struct stun_tcp, limit);
    if (tcp->connected)
        finish(tcp, UV_ETIMEDOUT, &(struct stun_result){0});
    else
        break_off(tcp, UV_ETIMEDOUT);
}

static void expect(struct stun_tcp *tcp, bool asked, unsigned timeout_ms, stun_cb done, void *arg) {
    tcp->asked = asked;
    tcp->done = done;
    tcp->arg = arg;
    uv_ref((uv_handle_t *)&tcp->tcp);
    uv_update_time(tcp->limit.loop); /* the timer counts from now */
    uv_timer_start(&tcp->limit, on_limit, timeout_ms ? timeout_ms : STUN_TCP_TIMEOUT_MS, 0);
}

int stun_tcp_ask(struct stun_tcp *tcp, unsigned timeout_ms, stun_cb done, void *arg) {
    if (tcp->broken)
        return tcp->broken;
    if (tcp->done || !tcp->connected)
        return UV_EBUSY;
    if (uv_stream_get_write_queue_size((uv_stream_t *)&tcp->tcp) > 0)
        return UV_ENOBUFS; /* the server has not read what it was asked before */
    send_request(tcp);
    if (tcp->broken)
        return tcp->broken;
    expect(tcp, true, timeout_ms, done, arg);
    return 0;
}

int stun_tcp_wait(struct stun_tcp *tcp, unsigned timeout_ms, stun_cb done, void *arg) {
    if (tcp->broken)
        return tcp->broken;
    if (tcp->done || !tcp->connected)
        return UV_EBUSY;
    expect(tcp, false, timeout_ms, done, arg);
    return 0;
}

/* --- the connection ------------------------------------------------------------------------ */

static void on_connected(uv_connect_t *connect, int status) {
    struct stun_tcp *tcp = container_of(connect, struct stun_tcp, connect);
    if (tcp->closed || tcp->broken)
        return;
    if (status == 0)
        status = uv_read_start((uv_stream_t *)&tcp->tcp, on_alloc, on_read);
    if (status != 0) {
        break_off(tcp, status);
        return;
    }
    tcp->connected = true;
    uv_tcp_nodelay(&tcp->tcp, 1);
    send_request(tcp);
}

struct stun_endpoint stun_tcp_local(const struct stun_tcp *tcp) {
    struct stun_endpoint local = {0};
    struct sockaddr_storage address;
    int size = sizeof address;
    if (uv_tcp_getsockname(&tcp->tcp, (struct sockaddr *)&address, &size) == 0)
        ip_from_sockaddr((struct sockaddr *)&address, &local.ip, &local.port);
    return local;
}

struct stun_endpoint stun_tcp_server(const struct stun_tcp *tcp) {
    return tcp->server;
}

static void on_closed(struct stun_tcp *tcp) {
    if (--tcp->handles == 0)
        free(tcp);
}

static void on_tcp_closed(uv_handle_t *handle) {
    on_closed(container_of(handle, struct stun_tcp, tcp));
}

static void on_limit_closed(uv_handle_t *handle) {
    on_closed(container_of(handle, struct stun_tcp, limit));
}

void stun_tcp_close(struct stun_tcp *tcp) {
    tcp->closed = true;
    stun_tcp_cancel(tcp);
    uv_close((uv_handle_t *)&tcp->tcp, on_tcp_closed);
    uv_close((uv_handle_t *)&tcp->limit, on_limit_closed);
}

static int set_up(struct stun_tcp *tcp, const struct stun_local *local) {
    struct sockaddr_storage address;
    struct ip any = {.family = tcp->server.ip.family};
    uv_os_fd_t fd;
    int status = uv_fileno((uv_handle_t *)&tcp->tcp, &fd);
    if (status != 0)
        return status;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &(int){1}, sizeof(int)) ||
        (local->device && setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, local->device,
                                     (socklen_t)strlen(local->device))))
        return uv_translate_sys_error(errno);
    ip_to_sockaddr(local->ip.family ? &local->ip : &any, local->port, &address);
    return uv_tcp_bind(&tcp->tcp, (struct sockaddr *)&address, 0); /* with SO_REUSEADDR */
}

int stun_tcp_open(uv_loop_t *loop, const struct stun_local *local,
                  const struct stun_endpoint *server, unsigned timeout_ms, stun_cb done, void *arg,
                  struct stun_tcp **out) {
    struct sockaddr_storage to;
    if (local->ip.family != 0 && local->ip.family != server->ip.family)
        return UV_EAFNOSUPPORT;
    struct stun_tcp *tcp = calloc(1, sizeof *tcp);
    if (!tcp)
        return UV_ENOMEM;
    int status = uv_tcp_init_ex(loop, &tcp->tcp, server->ip.family == 4 ? AF_INET : AF_INET6);
    if (status != 0) {
        free(tcp);
        return status;
    }
    uv_timer_init(loop, &tcp->limit);
    tcp->handles = 2;
    tcp->server = *server;
    ip_to_sockaddr(&server->ip, server->port, &to);
    status = set_up(tcp, local);
    if (status == 0)
        status = uv_tcp_connect(&tcp->connect, &tcp->tcp, (struct sockaddr *)&to, on_connected);
    if (status != 0) {
        stun_tcp_close(tcp);
        return status;
    }
    expect(tcp, true, timeout_ms, done, arg);
    *out = tcp;
    return 0;
}
