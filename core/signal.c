#include "core/signal.h"

#include "core/bucket.h"
#include "core/err.h"
#include "core/loop.h"
#include "core/mqtt.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define KEEPALIVE_S 20
#define QUEUE_MESSAGES BUCKET_MESSAGES_BURST /* of one link, unopened */
#define ROUND_NS 1000000                     /* of opening, until the loop is let go on */
#define SHARE 5                              /* opening takes at most every fifth ns of the time, */
#define SHARE_BURST_NS 20000000              /* after a rest up to this much at once */
#define STALE_PER_S 2
#define STALE_BURST 8

struct unopened {
    struct unopened *next;
    size_t length;
    uint8_t bytes[];
};

struct signal_link {
    struct signal *signal;
    struct signal_link *next;
    struct mqtt *mqtt;
    struct signal_link_options options; /* functions and arg alone */
    struct unopened *first, *last;
    unsigned count;
};

struct signal {
    struct signal_options options;
    uv_idle_t idle;   /* runs while there is something to open, */
    uv_timer_t pause; /* and this while that must wait */
    struct inbox *inbox;
    struct inbox_counters gone; /* what links that are closed had counted at the gate */
    struct bucket stale;
    struct signal_link *links, *turn; /* turn: the next to be served, or NULL for the first */
    size_t link_count;
    int64_t offset_ms;
    int64_t credit_ns; /* that may be spent on opening */
    uint64_t credited_ns;
    bool closing;
    int closes;
    void (*closed)(void *arg);
    uint8_t buffer[SEAL_MAX_MESSAGE];
};

static uint64_t not_negative(int64_t ms) {
    return ms > 0 ? (uint64_t)ms : 0;
}

static uint64_t wall_ms(const struct signal_options *options) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return not_negative((int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000 +
                        options->clock_error_ms);
}

uint64_t signal_time_ms(const struct signal *signal) {
    return not_negative((int64_t)wall_ms(&signal->options) + signal->offset_ms);
}

/* ---- opening ---- */

static void earn(struct signal *signal) {
    uint64_t now = uv_hrtime(), earned = (now - signal->credited_ns) / SHARE;
    signal->credited_ns = now;
    if (earned > SHARE_BURST_NS || signal->credit_ns + (int64_t)earned > SHARE_BURST_NS)
        signal->credit_ns = SHARE_BURST_NS;
    else
        signal->credit_ns += (int64_t)earned;
}

/* The next link that has something, starting behind the one that was served last; NULL when there
 * is none. */
static struct signal_link *next_link(const struct signal *signal) {
    struct signal_link *link = signal->turn ? signal->turn : signal->links;
    for (size_t i = 0; i < signal->link_count; i++) {
        if (link->first)
            return link;
        link = link->next ? link->next : signal->links;
    }
    return NULL;
}

static void open_one(struct signal *signal, const struct unopened *unopened) {
    struct seal_message message;
    int64_t skew_ms = 0;
    int status = inbox_open(signal->inbox, signal->options.key, unopened->bytes, unopened->length,
                            wall_ms(&signal->options), signal->offset_ms, signal->buffer, &message,
                            &skew_ms);
    if (status == 0)
        signal->options.on_message(signal->options.arg, &message);
    else if (status == ERR_ESTALE && bucket_take(&signal->stale, uv_now(signal->idle.loop)))
        signal->options.on_stale(signal->options.arg, &message, skew_ms);
}

static struct unopened *take(struct signal_link *link) {
    struct unopened *unopened = link->first;
    link->signal->turn = link->next;
    link->first = unopened->next;
    if (!link->first)
        link->last = NULL;
    link->count--;
    return unopened;
}

static void on_idle(uv_idle_t *idle);

static void on_pause_over(uv_timer_t *timer) {
    uv_idle_start(&container_of(timer, struct signal, pause)->idle, on_idle);
}

static void on_idle(uv_idle_t *idle) {
    struct signal *signal = container_of(idle, struct signal, idle);
    uint64_t begun = uv_hrtime(), now = begun;
    struct signal_link *link;
    earn(signal);
    while (!signal->closing && signal->credit_ns > 0 && now - begun < ROUND_NS &&
           (link = next_link(signal))) {
        struct unopened *unopened = take(link);
        open_one(signal, unopened);
        free(unopened);
        uint64_t after = uv_hrtime();
        signal->credit_ns -= (int64_t)(after - now);
        now = after;
    }
    if (signal->closing)
        return;
    if (signal->credit_ns <= 0) {
        uv_idle_stop(idle);
        uv_timer_start(&signal->pause, on_pause_over,
                       (uint64_t)-signal->credit_ns * SHARE / 1000000 + 1, 0);
    } else if (!next_link(signal)) {
        uv_idle_stop(idle);
    }
}

/* ---- a link ---- */

static bool wanted(void *arg, const uint8_t *payload, size_t length, bool retained) {
    struct inbox_counters *counters = inbox_counters(((struct signal_link *)arg)->signal->inbox);
    if (retained)
        counters->retained++;
    else if (length < SEAL_OVERHEAD || payload[0] != SEAL_VERSION)
        counters->malformed++;
    else
        return true;
    return false;
}

static void on_link_message(void *arg, const uint8_t *payload, size_t length, bool retained) {
    struct signal_link *link = arg;
    struct signal *signal = link->signal;
    (void)retained; /* such ones were not wanted */
    struct unopened *unopened =
        link->count < QUEUE_MESSAGES ? malloc(sizeof(*unopened) + length) : NULL;
    if (!unopened) {
        inbox_counters(signal->inbox)->overload++;
        return;
    }
    unopened->next = NULL;
    unopened->length = length;
    memcpy(unopened->bytes, payload, length);
    if (link->last)
        link->last->next = unopened;
    else
        link->first = unopened;
    link->last = unopened;
    link->count++;
    if (!uv_is_active((uv_handle_t *)&signal->pause))
        uv_idle_start(&signal->idle, on_idle);
}

static void on_link_up(void *arg) {
    struct signal_link *link = arg;
    link->options.on_up(link->options.arg);
}

static void on_link_down(void *arg, int status) {
    struct signal_link *link = arg;
    link->options.on_down(link->options.arg, status);
}

int signal_link(struct signal *signal, const struct signal_link_options *options,
                struct signal_link **out) {
    if (signal->link_count >= SIGNAL_LINKS_MAX)
        return UV_EMFILE;
    struct signal_link *link = calloc(1, sizeof(*link));
    if (!link)
        return UV_ENOMEM;
    struct mqtt_options mqtt = {
        .remote = options->remote,
        .host = options->host,
        .tls = options->tls,
        .ca_file = options->ca_file,
        .topic = key_id(signal->options.key),
        .payload_limit = SEAL_MAX_MESSAGE,
        .connect_timeout_ms = options->connect_timeout_ms,
        .keepalive_s = KEEPALIVE_S,
        .rate = BUCKET_MESSAGES_PER_S,
        .burst = BUCKET_MESSAGES_BURST,
        .wanted = wanted,
        .on_message = on_link_message,
        .on_up = on_link_up,
        .on_down = on_link_down,
        .arg = link,
    };
    int status = mqtt_open(signal->idle.loop, &mqtt, &link->mqtt);
    if (status) {
        free(link);
        return status;
    }
    link->signal = signal;
    link->options = *options;
    link->next = signal->links;
    signal->links = link;
    signal->link_count++;
    *out = link;
    return 0;
}

static void add_gate(struct inbox_counters *sum, const struct mqtt *mqtt) {
    struct mqtt_counters gate = mqtt_counters(mqtt);
    sum->oversized += gate.oversized;
    sum->malformed += gate.malformed;
    sum->limited += gate.limited;
    sum->overload += gate.overload;
}

static void finish(struct signal *signal) {
    if (--signal->closes)
        return;
    void (*closed)(void *) = signal->closed;
    void *arg = signal->options.arg;
    key_drop(signal->options.key);
    inbox_free(signal->inbox);
    crypto_wipe(signal->buffer, sizeof(signal->buffer));
    free(signal);
    if (closed)
        closed(arg);
}

static void on_link_closed(void *arg) {
    struct signal_link *link = arg;
    struct signal *signal = link->signal;
    free(link);
    finish(signal);
}

static void unlist(struct signal_link *link) {
    struct signal *signal = link->signal;
    struct signal_link **place = &signal->links;
    while (*place != link)
        place = &(*place)->next;
    *place = link->next;
    signal->link_count--;
    if (signal->turn == link)
        signal->turn = link->next;
}

void signal_link_close(struct signal_link *link) {
    unlist(link);
    add_gate(&link->signal->gone, link->mqtt);
    while (link->first)
        free(take(link));
    link->signal->closes++;
    mqtt_close(link->mqtt, on_link_closed);
}

const char *signal_link_reason(const struct signal_link *link) {
    return mqtt_reason(link->mqtt);
}

/* ---- all of them ---- */

int signal_new(uv_loop_t *loop, const struct signal_options *options, struct signal **out) {
    struct signal *signal = calloc(1, sizeof(*signal));
    if (!signal)
        return UV_ENOMEM;
    int status = inbox_new(wall_ms(options), &signal->inbox);
    if (status) {
        free(signal);
        return status;
    }
    signal->options = *options;
    key_keep(options->key);
    signal->stale = bucket_full(STALE_PER_S, STALE_BURST, uv_now(loop));
    signal->credit_ns = SHARE_BURST_NS;
    signal->credited_ns = uv_hrtime();
    signal->closes = 2; /* the idle handle and the timer, once they are closed */
    uv_idle_init(loop, &signal->idle);
    uv_timer_init(loop, &signal->pause);
    *out = signal;
    return 0;
}

int signal_send(struct signal *signal, const uint8_t to[KEY_PUBLIC_SIZE], const void *body,
                size_t length, int64_t skew_ms, struct signal_link *const links[], size_t count,
                uint8_t id[SEAL_ID_SIZE]) {
    uint8_t sealed[SEAL_MAX_MESSAGE];
    char topic[KEY_ID_SIZE];
    crypto_random(id, SEAL_ID_SIZE);
    uint64_t time_ms = signal_time_ms(signal) + (uint64_t)skew_ms;
    int status = seal(signal->options.key, to, time_ms, id, body, length, sealed);
    if (status)
        return status;
    node_id_format(to, topic);
    int taken = 0;
    status = UV_ENOTCONN;
    for (size_t i = 0; i < count; i++) {
        int given = mqtt_publish(links[i]->mqtt, topic, sealed, SEAL_OVERHEAD + length);
        if (given == 0)
            taken++;
        else if (given != UV_ENOTCONN)
            status = given;
    }
    return taken ? taken : status;
}

void signal_set_clock_offset(struct signal *signal, int64_t offset_ms) {
    signal->offset_ms = offset_ms;
}

void signal_counters(const struct signal *signal, struct inbox_counters *out) {
    *out = *inbox_counters(signal->inbox);
    out->oversized += signal->gone.oversized;
    out->malformed += signal->gone.malformed;
    out->limited += signal->gone.limited;
    out->overload += signal->gone.overload;
    for (const struct signal_link *link = signal->links; link; link = link->next)
        add_gate(out, link->mqtt);
}

static void on_idle_closed(uv_handle_t *handle) {
    finish(container_of(handle, struct signal, idle));
}

static void on_pause_closed(uv_handle_t *handle) {
    finish(container_of(handle, struct signal, pause));
}

void signal_close(struct signal *signal, void (*closed)(void *arg)) {
    signal->closing = true;
    signal->closed = closed;
    while (signal->links)
        signal_link_close(signal->links);
    uv_close((uv_handle_t *)&signal->idle, on_idle_closed);
    uv_close((uv_handle_t *)&signal->pause, on_pause_closed);
}
