/* tls_echo: 64-byte round trips, and bytes one way, in plain C on libuv with OpenSSL.
 *
 *   tls_echo serve            prints "port N", echoes what arrives until its standard input ends
 *   tls_echo sink             the same, but swallows it, and sends one byte back when the peer has
 * sent all tls_echo echo PORT COUNT  prints round trips per second of 64 bytes tls_echo send PORT
 * BYTES  prints MiB/s of 64 KiB writes, until the sink has all of them */
#include "spec/bench/plain.h"

#define MESSAGE 64
#define WRITE (64 * 1024)

static SSL_CTX *context;
static int sinks;
static long long wanted, done;
static uint64_t started;
static char block[PLAIN_BUFFER];

static void serve_progress(struct plain *plain) {
    int n;
    while ((n = SSL_read(plain->ssl, block, sizeof block)) > 0)
        if (!sinks)
            SSL_write(plain->ssl, block, n);
    if (sinks && SSL_get_error(plain->ssl, n) == SSL_ERROR_ZERO_RETURN)
        SSL_write(plain->ssl, block, 1);
    plain_flush(plain);
}

static void on_connection(uv_stream_t *server, int status) {
    struct plain *plain = calloc(1, sizeof *plain);
    plain->progress = serve_progress;
    uv_tcp_init(server->loop, &plain->tcp);
    if (status != 0 || uv_accept(server, (uv_stream_t *)&plain->tcp) != 0)
        plain_die("accept", status);
    plain_start(plain, context, 1);
}

static void on_input(uv_poll_t *poll, int status, int events) {
    char byte[64];
    (void)events;
    if (status != 0 || read(0, byte, sizeof byte) <= 0)
        uv_stop(poll->loop);
}

static void serve(uv_loop_t *loop) {
    static uv_tcp_t tcp;
    static uv_poll_t input;
    struct sockaddr_in address;
    int size = sizeof address;
    context = plain_context(1);
    uv_ip4_addr("127.0.0.1", 0, &address);
    uv_tcp_init(loop, &tcp);
    uv_tcp_bind(&tcp, (struct sockaddr *)&address, 0);
    int status = uv_listen((uv_stream_t *)&tcp, 128, on_connection);
    if (status != 0)
        plain_die("listen", status);
    uv_tcp_getsockname(&tcp, (struct sockaddr *)&address, &size);
    printf("port %d\n", ntohs(address.sin_port));
    fflush(stdout);
    status = uv_poll_init(loop, &input, 0);
    if (status != 0)
        plain_die("standard input", status);
    uv_poll_start(&input, UV_READABLE, on_input);
}

static double seconds(void) {
    return (double)(uv_hrtime() - started) / 1e9;
}

static void echo_progress(struct plain *plain) {
    static int arrived;
    int n;
    if (started == 0) {
        started = uv_hrtime();
        SSL_write(plain->ssl, block, MESSAGE);
    }
    while ((n = SSL_read(plain->ssl, block, sizeof block)) > 0)
        arrived += n;
    if (arrived >= MESSAGE) {
        arrived -= MESSAGE;
        if (++done == wanted) {
            printf("%.0f\n", (double)done / seconds());
            plain_close(plain);
            return;
        }
        SSL_write(plain->ssl, block, MESSAGE);
    }
    plain_flush(plain);
}

static void send_more(struct plain *plain) {
    while (done < wanted && plain->writes == 0) {
        SSL_write(plain->ssl, block, WRITE);
        done += WRITE;
        if (done >= wanted)
            SSL_shutdown(plain->ssl);
        plain_flush(plain);
    }
}

static void send_progress(struct plain *plain) {
    if (started == 0) {
        started = uv_hrtime();
        send_more(plain);
    }
    if (SSL_read(plain->ssl, block, 1) == 1) {
        printf("%.1f\n", (double)wanted / 1048576 / seconds());
        plain_close(plain);
    }
}

static void on_connected(uv_connect_t *request, int status) {
    if (status != 0)
        plain_die("connect", status);
    plain_start((struct plain *)(void *)request->handle, context, 0);
}

static void dial(uv_loop_t *loop, int port, void (*progress)(struct plain *)) {
    struct plain *plain = calloc(1, sizeof *plain);
    struct sockaddr_in address;
    context = plain_context(0);
    plain->progress = progress;
    plain->drained = progress == send_progress ? send_more : NULL;
    uv_ip4_addr("127.0.0.1", port, &address);
    uv_tcp_init(loop, &plain->tcp);
    uv_tcp_connect(&plain->connect, &plain->tcp, (struct sockaddr *)&address, on_connected);
}

int main(int count, char **arguments) {
    uv_loop_t *loop = uv_default_loop();
    const char *mode = count > 1 ? arguments[1] : "";
    sinks = strcmp(mode, "sink") == 0;
    if (sinks || strcmp(mode, "serve") == 0) {
        serve(loop);
    } else if (count == 4 && (strcmp(mode, "echo") == 0 || strcmp(mode, "send") == 0)) {
        wanted = atoll(arguments[3]);
        dial(loop, atoi(arguments[2]), *mode == 'e' ? echo_progress : send_progress);
    } else {
        fprintf(stderr, "usage: tls_echo serve | sink | echo PORT COUNT | send PORT BYTES\n");
        return 2;
    }
    uv_run(loop, UV_RUN_DEFAULT);
    return 0;
}
