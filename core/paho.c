#include "core/paho.h"

#include "core/loop.h"

#include <arpa/inet.h>
#include <limits.h>
#include <MQTTAsync.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define WAITING_PUBLISHES 64
#define NO_TIMEOUT_S (24 * 3600) /* core/mqtt.c watches the time */
#define RESIDENT_PATIENCE_MS 5000
#define RESIDENT_STEP_MS 2
#define SETTLE_TRIES 50 /* of RESIDENT_STEP_MS each, more than its sleep lasts */
#define PULSE_MS 500    /* paho's receiving thread falls asleep after 1000 */

enum event_kind { EVENT_SUBSCRIBED, EVENT_DOWN, EVENT_MESSAGE };

struct paho_event {
    struct paho_event *next;
    enum event_kind kind;
    int status;
    bool retained;
    size_t length;
    uint8_t payload[];
};

/* Guards the list, and the events of those in it. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct paho *open_list;
static uint64_t last_id;

static pthread_once_t started = PTHREAD_ONCE_INIT;
static MQTTAsync resident;
static atomic_int resident_socket = -1; /* our end of the resident's connection */
static atomic_uint echoes;              /* messages that the resident got */

/* ---- on paho's threads ---- */

static struct paho *find(void *context) {
    uint64_t id = (uint64_t)(uintptr_t)context;
    struct paho *paho = open_list;
    while (paho && paho->id != id)
        paho = paho->next;
    return paho;
}

static void post(struct paho *paho, struct paho_event *event) {
    event->next = NULL;
    if (paho->last)
        paho->last->next = event;
    else
        paho->first = event;
    paho->last = event;
    uv_async_send(&paho->async);
}

static void post_plain(void *context, enum event_kind kind, int status) {
    struct paho_event *event = calloc(1, sizeof(*event));
    if (!event)
        return; /* the deadline of core/mqtt.c or the keepalive notices */
    event->kind = kind;
    event->status = status;
    pthread_mutex_lock(&lock);
    struct paho *paho = find(context);
    if (paho)
        post(paho, event);
    pthread_mutex_unlock(&lock);
    if (!paho)
        free(event);
}

static void subscribed(void *context, MQTTAsync_successData *data) {
    (void)data;
    post_plain(context, EVENT_SUBSCRIBED, 0);
}

static void subscribe_failed(void *context, MQTTAsync_failureData *data) {
    (void)data;
    post_plain(context, EVENT_DOWN, UV_EACCES);
}

static void connect_failed(void *context, MQTTAsync_failureData *data) {
    (void)data;
    post_plain(context, EVENT_DOWN, UV_ECONNABORTED);
}

static void lost(void *context, char *cause) {
    (void)cause;
    post_plain(context, EVENT_DOWN,
               UV_ETIMEDOUT); /* no answer to PINGREQ: nothing else ends it here */
}

static void connected(void *context, MQTTAsync_successData *data) {
    (void)data;
    MQTTAsync_responseOptions response = MQTTAsync_responseOptions_initializer;
    response.onSuccess = subscribed;
    response.onFailure = subscribe_failed;
    response.context = context;
    int result = MQTTASYNC_SUCCESS;
    pthread_mutex_lock(&lock);
    struct paho *paho = find(context);
    if (paho)
        result = MQTTAsync_subscribe(paho->handle, paho->topic, 0, &response);
    pthread_mutex_unlock(&lock);
    if (result != MQTTASYNC_SUCCESS)
        post_plain(context, EVENT_DOWN, UV_EIO);
}

static int arrived(void *context, char *topic, int topic_length, MQTTAsync_message *message) {
    (void)topic_length;
    size_t length = message->payloadlen > 0 ? (size_t)message->payloadlen : 0;
    struct paho_event *event = malloc(sizeof(*event) + length);
    if (event) {
        event->kind = EVENT_MESSAGE;
        event->status = 0;
        event->retained = message->retained;
        event->length = length;
        memcpy(event->payload, message->payload, length);
    }
    pthread_mutex_lock(&lock);
    struct paho *paho = find(context);
    if (paho && event && paho->count < paho->options.queue_count &&
        length <= paho->options.queue_bytes - paho->bytes) {
        paho->count++;
        paho->bytes += length;
        post(paho, event);
        event = NULL;
    } else if (paho) {
        paho->dropped++;
    }
    pthread_mutex_unlock(&lock);
    free(event);
    MQTTAsync_freeMessage(&message);
    MQTTAsync_free(topic);
    return 1;
}

/* ---- waking them ---- */

/* PINGRESP (MQTT 3.1.1, 3.13), unasked for: makes the resident's socket readable, and means nothing
 * to paho. */
static void wake_receiver(int fd) {
    static const uint8_t pingresp[] = {0xd0, 0};
    uint8_t drain[256];
    while (recv(fd, drain, sizeof(drain), MSG_DONTWAIT) > 0)
        continue;
    (void)!send(fd, pingresp, sizeof(pingresp), MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* A command of the resident's own signals the sending thread once more; the broker that it has
 * throws it away. */
void paho_wake(unsigned attempt) {
    int fd = atomic_load(&resident_socket);
    if (fd < 0)
        return;
    wake_receiver(fd);
    if (attempt > 0)
        MQTTAsync_send(resident, "wake", 1, "", 0, 0, NULL);
}

/* ---- the resident ---- */

/* The client ID follows 2 + 10 + 2 bytes of CONNECT (MQTT 3.1.1, 3.1), which is short enough for
 * one byte of length. */
static bool is_resident(const uint8_t *packet, ssize_t length, const char *client_id) {
    return length >= 14 + PAHO_CLIENT_ID_LENGTH && packet[0] == 0x10 &&
           memcmp(packet + 14, client_id, PAHO_CLIENT_ID_LENGTH) == 0;
}

static int make_client(MQTTAsync *handle, uint16_t port, const char *client_id) {
    MQTTAsync_createOptions create = MQTTAsync_createOptions_initializer;
    create.maxBufferedMessages = WAITING_PUBLISHES;
    create.MQTTVersion = MQTTVERSION_3_1_1;
    char uri[32];
    snprintf(uri, sizeof(uri), "tcp://127.0.0.1:%u", port);
    return MQTTAsync_createWithOptions(handle, uri, client_id, MQTTCLIENT_PERSISTENCE_NONE, NULL,
                                       &create);
}

static MQTTAsync_connectOptions connect_options(unsigned keepalive_s) {
    MQTTAsync_connectOptions options = MQTTAsync_connectOptions_initializer;
    options.keepAliveInterval = (int)keepalive_s;
    options.connectTimeout = NO_TIMEOUT_S;
    options.cleansession = 1;
    options.MQTTVersion = MQTTVERSION_3_1_1;
    return options;
}

/* paho's receiving thread begins with a sleep of 100 ms when it runs before there is a socket, and
 * such a sleep ends early when a signal comes. The C library has a signal of its own that reaches
 * all threads, and no handler of anyone's takes part: the one by which all threads take the same
 * group IDs. Here they stay as they are. */
static void interrupt_sleep(void) {
    if (setresgid((gid_t)-1, (gid_t)-1, (gid_t)-1))
        return; /* not allowed here: then it sleeps for its 100 ms */
}

/* CONNACK before it asked: then its socket is readable as soon as it looks, and it does not wait
 * for the poll to end. */
static bool greet(int fd, const char *client_id) {
    static const uint8_t connack[] = {0x20, 2, 0, 0};
    uint8_t packet[128];
    if (send(fd, connack, sizeof(connack), MSG_NOSIGNAL) != (ssize_t)sizeof(connack))
        return false;
    for (int waited = 0; waited < RESIDENT_PATIENCE_MS; waited += RESIDENT_STEP_MS) {
        struct pollfd readable = {.fd = fd, .events = POLLIN};
        if (poll(&readable, 1, RESIDENT_STEP_MS) > 0)
            return is_resident(packet, recv(fd, packet, sizeof(packet), 0), client_id);
        interrupt_sleep();
    }
    return false;
}

static int echoed(void *context, char *topic, int topic_length, MQTTAsync_message *message) {
    (void)context, (void)topic_length;
    atomic_fetch_add(&echoes, 1);
    MQTTAsync_freeMessage(&message);
    MQTTAsync_free(topic);
    return 1;
}

static bool await_echo(unsigned before) {
    for (int step = 0; step < 10; step++) {
        if (atomic_load(&echoes) != before)
            return true;
        usleep(RESIDENT_STEP_MS * 100);
    }
    return false;
}

/* An interruption that finds the receiving thread in its poll sends it to sleep instead. So this
 * goes on until the thread has taken a message, and was not interrupted since that was sent. */
static void settle(int fd) {
    static const uint8_t publish[] = {0x30, 3, 0, 1, 'w'}; /* topic "w", empty (MQTT 3.1.1, 3.3) */
    for (int tries = 0, interrupted = 1; interrupted && tries < SETTLE_TRIES; tries++) {
        unsigned before = atomic_load(&echoes);
        interrupted = 0;
        if (send(fd, publish, sizeof(publish), MSG_NOSIGNAL) != (ssize_t)sizeof(publish))
            return;
        while (!await_echo(before) && interrupted++ < SETTLE_TRIES)
            interrupt_sleep();
    }
}

void paho_client_id(char id[PAHO_CLIENT_ID_LENGTH + 1]) {
    uint8_t bytes[PAHO_CLIENT_ID_LENGTH];
    if (uv_random(NULL, NULL, bytes, sizeof(bytes), 0, NULL))
        abort(); /* a system without randomness is no place for keys */
    for (size_t i = 0; i < sizeof(bytes); i++)
        id[i] = (char)('a' + bytes[i] % 26);
    id[sizeof(bytes)] = '\0';
}

static _Noreturn void keep_awake(int fd) {
    for (;;) {
        wake_receiver(fd);
        uv_sleep(PULSE_MS);
    }
}

/* paho starts its threads when it first connects, and they inherit this: a signal is the business
 * of the thread that runs the loop. */
static int connect_masked(MQTTAsync handle, const MQTTAsync_connectOptions *options) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int result = MQTTAsync_connect(handle, options);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return result;
}

static void *run_resident(void *unused) {
    sigset_t all;
    (void)unused;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    char id[PAHO_CLIENT_ID_LENGTH + 1];
    paho_client_id(id);
    int door = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (door < 0)
        return NULL;
    if (bind(door, (struct sockaddr *)&address, size) || listen(door, 4) ||
        getsockname(door, (struct sockaddr *)&address, &size) ||
        make_client(&resident, ntohs(address.sin_port), id) != MQTTASYNC_SUCCESS)
        goto out;
    MQTTAsync_connectOptions options = connect_options(0);
    if (MQTTAsync_setCallbacks(resident, NULL, NULL, echoed, NULL) != MQTTASYNC_SUCCESS ||
        connect_masked(resident, &options) != MQTTASYNC_SUCCESS)
        goto out;
    struct pollfd ready = {.fd = door, .events = POLLIN};
    while (poll(&ready, 1, RESIDENT_PATIENCE_MS) > 0) {
        int fd = accept4(door, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            break;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        if (greet(fd, id)) {
            close(door);
            settle(fd);
            atomic_store(&resident_socket, fd);
            keep_awake(fd);
        }
        close(fd); /* somebody else on this machine */
    }
out:
    close(door);
    return NULL;
}

static void start(void) {
    /* OpenSSL looks after itself, and paho's own way of preparing it costs milliseconds. */
    MQTTAsync_init_options init = MQTTAsync_init_options_initializer;
    init.do_openssl_init = 0;
    MQTTAsync_global_init(&init);
    /* paho would send all of its connections, also those to loopback, through the proxy that this
     * names. */
    unsetenv("http_proxy");
    pthread_attr_t detached;
    pthread_t thread;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    (void)!pthread_create(&thread, &detached, run_resident, NULL);
    pthread_attr_destroy(&detached);
}

void paho_start(void) {
    pthread_once(&started, start);
}

/* ---- on the loop's thread ---- */

static void deliver(struct paho *paho, struct paho_event *event) {
    if (!paho->handle || paho->down)
        return;
    switch (event->kind) {
    case EVENT_SUBSCRIBED:
        paho->options.on_subscribed(paho);
        break;
    case EVENT_DOWN:
        paho->down = true;
        paho->options.on_down(paho, event->status);
        break;
    case EVENT_MESSAGE:
        paho->options.on_message(paho, event->payload, event->length, event->retained);
        break;
    }
}

static struct paho_event *take_all(struct paho *paho) {
    pthread_mutex_lock(&lock);
    struct paho_event *event = paho->first;
    paho->first = paho->last = NULL;
    paho->count = paho->bytes = 0;
    pthread_mutex_unlock(&lock);
    return event;
}

static void on_async(uv_async_t *async) {
    struct paho *paho = container_of(async, struct paho, async);
    for (struct paho_event *event = take_all(paho), *next; event; event = next) {
        next = event->next;
        deliver(paho, event);
        free(event);
    }
}

static void enlist(struct paho *paho) {
    pthread_mutex_lock(&lock);
    paho->id = ++last_id;
    paho->next = open_list;
    open_list = paho;
    pthread_mutex_unlock(&lock);
}

static void delist(struct paho *paho) {
    pthread_mutex_lock(&lock);
    for (struct paho **place = &open_list; *place; place = &(*place)->next)
        if (*place == paho) {
            *place = paho->next;
            break;
        }
    pthread_mutex_unlock(&lock);
}

static void on_closed(uv_handle_t *handle) {
    struct paho *paho = container_of(handle, struct paho, async);
    for (struct paho_event *event = take_all(paho), *next; event; event = next) {
        next = event->next;
        free(event);
    }
    free(paho->topic);
    paho->topic = NULL;
    paho->closed(paho);
}

int paho_open(struct paho *paho, uv_loop_t *loop, const struct paho_options *options) {
    paho_start();
    memset(paho, 0, sizeof(*paho));
    paho->options = *options;
    paho->topic = strdup(options->topic);
    if (!paho->topic)
        return UV_ENOMEM;
    int status = UV_EIO;
    if (make_client(&paho->handle, options->port, options->client_id) != MQTTASYNC_SUCCESS)
        goto failed;
    status = uv_async_init(loop, &paho->async, on_async);
    if (status)
        goto failed;
    enlist(paho);
    void *context = (void *)(uintptr_t)paho->id;
    MQTTAsync_connectOptions connect = connect_options(options->keepalive_s);
    connect.onSuccess = connected;
    connect.onFailure = connect_failed;
    connect.context = context;
    if (MQTTAsync_setCallbacks(paho->handle, context, lost, arrived, NULL) != MQTTASYNC_SUCCESS ||
        connect_masked(paho->handle, &connect) != MQTTASYNC_SUCCESS)
        post_plain(context, EVENT_DOWN, UV_EIO);
    return 0;
failed:
    if (paho->handle)
        MQTTAsync_destroy(&paho->handle);
    free(paho->topic);
    return status;
}

int paho_publish(struct paho *paho, const char *topic, const void *payload, size_t length) {
    if (!paho->handle || paho->down || length > INT_MAX)
        return UV_ENOTCONN;
    switch (MQTTAsync_send(paho->handle, topic, (int)length, payload, 0, 0, NULL)) {
    case MQTTASYNC_SUCCESS:
        return 0;
    case MQTTASYNC_DISCONNECTED:
        return UV_ENOTCONN;
    case MQTTASYNC_MAX_BUFFERED_MESSAGES:
        return UV_ENOBUFS;
    default:
        return UV_EIO;
    }
}

uint64_t paho_dropped(const struct paho *paho) {
    pthread_mutex_lock(&lock);
    uint64_t dropped = paho->dropped;
    pthread_mutex_unlock(&lock);
    return dropped;
}

void paho_close(struct paho *paho, void (*closed)(struct paho *paho)) {
    paho->closed = closed;
    delist(paho);
    MQTTAsync_destroy(&paho->handle);
    uv_close((uv_handle_t *)&paho->async, on_closed);
}
