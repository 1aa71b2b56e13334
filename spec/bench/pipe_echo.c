/* pipe_echo: what tls_echo does, through core/pipe: what the bindings have to work with.
 *
 *   pipe_echo serve | sink | echo PORT COUNT | send PORT BYTES   as tls_echo
 *   pipe_echo idle PORT COUNT                                    prints KiB of memory per idle pipe
 * of this process */
#include "core/listener.h"
#include "core/loop.h"

#include <arpa/inet.h>
#include <malloc.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MESSAGE 64
#define WRITE (64 * 1024)

struct end {
    struct pipe *pipe;
    unsigned arrived;
};

static uv_loop_t *loop;
static struct tls_identity *identity;
static struct listener *listener;
static struct sockaddr_in remote;
static char block[256 * 1024];
static int sinks;
static long long wanted, done;
static uint64_t started;

static void die(const char *what, int status) {
    fprintf(stderr, "%s: %d\n", what, status);
    exit(1);
}

static double seconds(void) {
    return (double)(uv_hrtime() - started) / 1e9;
}

/* Resident memory without what is shared with files. */
static long resident_kib(void) {
    long total = 0, resident = 0, shared = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%ld %ld %ld", &total, &resident, &shared) != 3)
        die("statm", 0);
    fclose(file);
    return (resident - shared) * (sysconf(_SC_PAGESIZE) / 1024);
}

static void serve_ready(void *arg, int status) {
    struct end *end = arg;
    ssize_t n;
    (void)status;
    while ((n = pipe_read(end->pipe, block, sizeof block)) > 0)
        if (!sinks)
            pipe_write(end->pipe, block, (size_t)n);
    if (n == UV_EAGAIN) {
        pipe_on_readable(end->pipe, serve_ready, end);
        return;
    }
    if (sinks && n == UV_EOF)
        pipe_write(end->pipe, block, 1);
    pipe_close(end->pipe, NULL, NULL);
    free(end);
}

static void on_pipe(void *arg, int status) {
    (void)arg;
    (void)status;
    struct pipe *pipe;
    while ((pipe = listener_accept(listener))) {
        struct end *end = calloc(1, sizeof *end);
        end->pipe = pipe;
        done++;
        pipe_on_readable(pipe, serve_ready, end);
    }
    listener_on_pipe(listener, on_pipe, NULL);
}

static void on_input(uv_poll_t *poll, int status, int events) {
    static long before;
    char bytes[64];
    (void)events;
    ssize_t n = status == 0 ? read(0, bytes, sizeof bytes) : 0;
    if (n <= 0) {
        uv_stop(poll->loop);
        return;
    }
    if (before != 0)
        printf("%lld pipes, %.2f KiB each\n", done,
               (double)(resident_kib() - before) / (double)done);
    else
        before = resident_kib();
    fflush(stdout);
}

static void serve(void) {
    static uv_poll_t input;
    struct sockaddr_in local;
    uv_ip4_addr("127.0.0.1", 0, &local);
    int status = listener_new(loop, identity, (struct sockaddr *)&local, 0, &listener);
    if (status != 0)
        die("listen", status);
    printf("port %d\n", listener_port(listener));
    fflush(stdout);
    listener_on_pipe(listener, on_pipe, NULL);
    uv_poll_init(loop, &input, 0);
    uv_poll_start(&input, UV_READABLE, on_input);
}

static void echo_ready(void *arg, int status) {
    struct end *end = arg;
    ssize_t n;
    (void)status;
    while ((n = pipe_read(end->pipe, block, sizeof block)) > 0)
        end->arrived += (unsigned)n;
    if (n != UV_EAGAIN)
        die("read", (int)n);
    if (end->arrived >= MESSAGE) {
        end->arrived -= MESSAGE;
        if (++done == wanted) {
            printf("%.0f\n", (double)done / seconds());
            pipe_abort(end->pipe, NULL, NULL);
            return;
        }
        pipe_write(end->pipe, block, MESSAGE);
    }
    pipe_on_readable(end->pipe, echo_ready, end);
}

static void send_confirmed(void *arg, int status) {
    struct end *end = arg;
    (void)status;
    if (pipe_read(end->pipe, block, 1) == 1) {
        printf("%.1f\n", (double)wanted / 1048576 / seconds());
        pipe_abort(end->pipe, NULL, NULL);
        return;
    }
    pipe_on_readable(end->pipe, send_confirmed, end);
}

static void send_more(void *arg, int status) {
    struct end *end = arg;
    if (status != 0)
        die("send", status);
    while (done < wanted) {
        if (pipe_queued(end->pipe) > PIPE_HIGH_WATER) {
            pipe_on_drained(end->pipe, send_more, end);
            return;
        }
        status = pipe_write(end->pipe, block, WRITE);
        if (status != 0)
            die("write", status);
        done += WRITE;
    }
    pipe_shutdown(end->pipe, NULL, NULL);
}

static void idle_next(void);

static void on_secured(void *arg, int status) {
    struct end *end = arg;
    static const uint8_t attempt[PIPE_ATTEMPT_SIZE];
    if (status != 0)
        die("secure", status);
    pipe_commit(end->pipe, attempt);
    if (wanted < 0) {
        idle_next();
        return;
    }
    started = uv_hrtime();
    if (sinks) {
        pipe_on_readable(end->pipe, send_confirmed, end);
        send_more(end, 0);
    } else {
        pipe_on_readable(end->pipe, echo_ready, end);
        pipe_write(end->pipe, block, MESSAGE);
    }
}

static void on_dialed(void *arg, int status) {
    struct end *end = arg;
    if (status == 0)
        status = pipe_secure(end->pipe, TLS_CLIENT, NULL, NULL, on_secured, end);
    if (status != 0)
        die("dial", status);
}

static void dial(void) {
    struct end *end = calloc(1, sizeof *end);
    int status = pipe_new(loop, identity, &end->pipe);
    if (status == 0)
        status = pipe_dial(end->pipe, (struct sockaddr *)&remote, NULL, on_dialed, end);
    if (status != 0)
        die("dial", status);
}

static void idle_next(void) {
    static long before;
    if (++done == -wanted) {
        printf("%.2f\n", (double)(resident_kib() - before) / (double)done);
        fflush(stdout);
        if (read(0, block, 1) >= 0)
            uv_stop(loop);
        return;
    }
    if (done == 1)
        before = resident_kib();
    dial();
}

int main(int count, char **arguments) {
    const char *mode = count > 1 ? arguments[1] : "";
    EVP_PKEY *key = EVP_EC_gen("P-256");
    loop = uv_default_loop();
    if (tls_identity_new(key, &identity) != 0)
        die("identity", 0);
    EVP_PKEY_free(key);
    sinks = strcmp(mode, "sink") == 0 || strcmp(mode, "send") == 0;
    if (count == 2 && (strcmp(mode, "sink") == 0 || strcmp(mode, "serve") == 0)) {
        serve();
    } else if (count == 4) {
        wanted = atoll(arguments[3]) * (strcmp(mode, "idle") == 0 ? -1 : 1);
        uv_ip4_addr("127.0.0.1", atoi(arguments[2]), &remote);
        dial();
    } else {
        fprintf(stderr, "usage: pipe_echo serve | sink | echo PORT COUNT | send PORT BYTES | idle "
                        "PORT COUNT\n");
        return 2;
    }
    uv_run(loop, UV_RUN_DEFAULT);
    return 0;
}
