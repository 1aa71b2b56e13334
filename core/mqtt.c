#include "core/mqtt.h"

#include "core/bucket.h"
#include "core/door.h"
#include "core/err.h"
#include "core/loop.h"
#include "core/mqtt_frame.h"
#include "core/paho.h"
#include "core/uplink.h"

#include <stdlib.h>
#include <string.h>

#define HEADER_MAX 5             /* of any packet (MQTT 3.1.1, 2.2) */
#define HELD_LIMIT 512           /* CONNECT and SUBSCRIBE, until the broker can hear them */
#define LOCAL_QUEUE_LIMIT 262144 /* bytes on their way to paho */
#define QUEUE_MESSAGES 256       /* messages between paho's thread and ours, */
#define QUEUE_BYTES (256 * 1024) /* and their bytes */
#define HURRY_MS 2u              /* after which paho is reminded of what it is to do; then twice */
#define HURRIES_GROW 5           /* that, and so on, so many times */
#define STRANGER_HURRIES 8       /* after which others on loopback have had time enough */

struct mqtt {
    struct mqtt_options options; /* pointers: topic, functions and arg alone */
    struct mqtt_counters counters;
    struct bucket bucket;
    struct uplink uplink;
    struct paho paho;
    struct door door;
    uv_timer_t deadline, tick;
    struct mqtt_cutter cutter; /* of what the broker sends */
    uint64_t published, seen;  /* messages that paho was asked to send, and sent */
    unsigned hurries;          /* since something is expected of paho */
    bool door_open, paho_open;
    bool asked;    /* paho sent SUBSCRIBE */
    bool accepted; /* the broker said CONNACK */
    bool up, over, closing;
    int early;       /* why it could not even be tried */
    unsigned closes; /* how many parts are still to be closed */
    void (*closed)(void *arg);
    char client_id[PAHO_CLIENT_ID_LENGTH + 1];
    uint8_t held[HELD_LIMIT];
    size_t held_length;
};

static void down(struct mqtt *mqtt, int status) {
    if (mqtt->over || mqtt->closing)
        return;
    mqtt->over = true;
    mqtt->up = false;
    uv_timer_stop(&mqtt->deadline);
    uv_timer_stop(&mqtt->tick);
    mqtt->options.on_down(mqtt->options.arg, status);
}

static bool ended(const struct mqtt *mqtt) {
    return mqtt->over || mqtt->closing;
}

/* ---- hurrying paho ---- */

static bool expecting(const struct mqtt *mqtt) {
    return !mqtt->asked || mqtt->published != mqtt->seen;
}

static void on_tick(uv_timer_t *timer);

static void schedule(struct mqtt *mqtt) {
    unsigned doublings = mqtt->hurries < HURRIES_GROW ? mqtt->hurries : HURRIES_GROW;
    uv_timer_start(&mqtt->tick, on_tick, HURRY_MS << doublings, 0);
}

static void hurry(struct mqtt *mqtt) {
    if (ended(mqtt) || uv_is_active((uv_handle_t *)&mqtt->tick))
        return;
    mqtt->hurries = 0;
    schedule(mqtt);
}

static void on_tick(uv_timer_t *timer) {
    struct mqtt *mqtt = container_of(timer, struct mqtt, tick);
    if (!expecting(mqtt))
        return;
    paho_wake(mqtt->hurries++);
    if (mqtt->hurries >= STRANGER_HURRIES)
        door_hurry(&mqtt->door);
    schedule(mqtt);
}

/* ---- from paho to the broker ---- */

static void flush_held(struct mqtt *mqtt) {
    if (!mqtt->asked || !mqtt->uplink.up || mqtt->held_length == 0)
        return;
    uplink_write(&mqtt->uplink, mqtt->held, mqtt->held_length);
    mqtt->held_length = 0;
}

/* Until the broker can hear it, what paho says is kept; after that it goes out at once. */
static void to_broker(struct mqtt *mqtt, const struct mqtt_packet *packet) {
    if (packet->type == MQTT_PUBLISH)
        mqtt->seen++;
    if (mqtt->uplink.up && mqtt->asked && mqtt->held_length == 0) {
        if (uplink_write(&mqtt->uplink, packet->bytes, packet->length) &&
            packet->type == MQTT_PUBLISH)
            mqtt->counters.overload++;
        return;
    }
    if (packet->length > sizeof(mqtt->held) - mqtt->held_length) {
        down(mqtt, UV_ENOBUFS);
        return;
    }
    memcpy(mqtt->held + mqtt->held_length, packet->bytes, packet->length);
    mqtt->held_length += packet->length;
    if (packet->type == MQTT_SUBSCRIBE)
        mqtt->asked = true;
    flush_held(mqtt);
}

static void on_door_packet(struct door *door, const struct mqtt_packet *packet) {
    struct mqtt *mqtt = container_of(door, struct mqtt, door);
    if (packet->type == MQTT_DISCONNECT)
        down(mqtt, UV_ETIMEDOUT); /* paho does so of its own when PINGREQ is not answered */
    else if (!ended(mqtt))
        to_broker(mqtt, packet);
}

static void on_door_lost(struct door *door) {
    down(container_of(door, struct mqtt, door), UV_ECONNABORTED);
}

static void on_door_knock(struct door *door) {
    (void)door;
    paho_wake(0);
}

/* ---- from the broker to paho ---- */

static int refusal(uint8_t code) { /* MQTT 3.1.1, 3.2.2.3 */
    static const int statuses[] = {0, UV_EPROTO, UV_EPROTO, UV_ECONNREFUSED, UV_EACCES, UV_EACCES};
    return code < sizeof(statuses) / sizeof(statuses[0]) ? statuses[code] : UV_EPROTO;
}

static void to_paho(struct mqtt *mqtt, const struct mqtt_packet *packet) {
    if (door_send(&mqtt->door, packet->bytes, packet->length))
        down(mqtt, UV_ECONNABORTED);
}

static void on_publish(struct mqtt *mqtt, const struct mqtt_packet *packet) {
    struct mqtt_publish message;
    mqtt->counters.received++;
    if (mqtt_publish_read(packet, &message) || message.qos != 0 ||
        message.topic_length != strlen(mqtt->options.topic) ||
        memcmp(message.topic, mqtt->options.topic, message.topic_length) != 0) {
        mqtt->counters.malformed++;
        return;
    }
    if (message.payload_length > mqtt->options.payload_limit) {
        mqtt->counters.oversized++;
        return;
    }
    if (mqtt->options.wanted && !mqtt->options.wanted(mqtt->options.arg, message.payload,
                                                      message.payload_length, message.retained))
        return;
    if (mqtt->options.rate && !bucket_take(&mqtt->bucket, uv_now(mqtt->tick.loop))) {
        mqtt->counters.limited++;
        return;
    }
    if (door_queued(&mqtt->door) > LOCAL_QUEUE_LIMIT) {
        mqtt->counters.overload++;
        return;
    }
    to_paho(mqtt, packet);
}

static void on_connack(struct mqtt *mqtt, const struct mqtt_packet *packet) {
    if (packet->type != MQTT_CONNACK || packet->body_length != 2)
        down(mqtt, UV_EPROTO);
    else if (packet->body[1] != 0)
        down(mqtt, refusal(packet->body[1]));
    else
        mqtt->accepted = true; /* paho has had one */
}

static void on_broker_packet(struct mqtt *mqtt, const struct mqtt_packet *packet) {
    if (!mqtt->accepted) {
        on_connack(mqtt, packet);
        return;
    }
    switch (packet->type) {
    case MQTT_PUBLISH:
        on_publish(mqtt, packet);
        break;
    case MQTT_SUBACK:
    case MQTT_PINGRESP:
        to_paho(mqtt, packet);
        break;
    default: /* nothing else answers what we say */
        down(mqtt, UV_EPROTO);
    }
}

static void on_uplink_data(struct uplink *uplink, const uint8_t *bytes, size_t length) {
    struct mqtt *mqtt = container_of(uplink, struct mqtt, uplink);
    struct mqtt_packet packet;
    int cut = 0;
    if (!mqtt->accepted && mqtt->cutter.length == 0 && bytes[0] >> 4 != MQTT_CONNACK)
        cut = ERR_EFORMAT; /* before its supposed length is waited for */
    while (cut >= 0 && !ended(mqtt) &&
           (cut = mqtt_cut(&mqtt->cutter, &bytes, &length, &packet)) > 0)
        on_broker_packet(mqtt, &packet);
    if (cut < 0)
        down(mqtt, cut == UV_ENOMEM ? cut : UV_EPROTO);
}

static void on_uplink_up(struct uplink *uplink) {
    flush_held(container_of(uplink, struct mqtt, uplink));
}

static void on_uplink_down(struct uplink *uplink, int status) {
    down(container_of(uplink, struct mqtt, uplink), status);
}

/* ---- from paho to the user ---- */

static void on_subscribed(struct paho *paho) {
    struct mqtt *mqtt = container_of(paho, struct mqtt, paho);
    if (ended(mqtt))
        return;
    mqtt->up = true;
    uv_timer_stop(&mqtt->deadline);
    mqtt->options.on_up(mqtt->options.arg);
}

static void on_paho_down(struct paho *paho, int status) {
    down(container_of(paho, struct mqtt, paho), status);
}

static void on_paho_message(struct paho *paho, const uint8_t *payload, size_t length,
                            bool retained) {
    struct mqtt *mqtt = container_of(paho, struct mqtt, paho);
    if (!ended(mqtt))
        mqtt->options.on_message(mqtt->options.arg, payload, length, retained);
}

static void on_deadline(uv_timer_t *timer) {
    struct mqtt *mqtt = container_of(timer, struct mqtt, deadline);
    down(mqtt, mqtt->early ? mqtt->early : UV_ETIMEDOUT);
}

/* ---- all of it ---- */

static int open_paho(struct mqtt *mqtt, uv_loop_t *loop) {
    struct door_options door = {
        .client_id = mqtt->client_id,
        .packet_limit = HEADER_MAX + 2 + MQTT_TOPIC_MAX + mqtt->options.payload_limit,
        .on_knock = on_door_knock,
        .on_packet = on_door_packet,
        .on_lost = on_door_lost,
    };
    struct paho_options paho = {
        .client_id = mqtt->client_id,
        .topic = mqtt->options.topic,
        .keepalive_s = mqtt->options.keepalive_s,
        .queue_count = QUEUE_MESSAGES,
        .queue_bytes = QUEUE_BYTES,
        .on_subscribed = on_subscribed,
        .on_down = on_paho_down,
        .on_message = on_paho_message,
    };
    paho_client_id(mqtt->client_id);
    int status = door_open(&mqtt->door, loop, &door, &paho.port);
    mqtt->door_open = true;
    if (status == 0)
        status = paho_open(&mqtt->paho, loop, &paho);
    mqtt->paho_open = status == 0;
    return status;
}

static int make(uv_loop_t *loop, const struct mqtt_options *options, struct mqtt **out) {
    size_t topic_length = strlen(options->topic);
    if (topic_length == 0 || topic_length > MQTT_TOPIC_MAX || strpbrk(options->topic, "#+") ||
        options->keepalive_s == 0 || options->keepalive_s > UINT16_MAX)
        return UV_EINVAL;
    struct mqtt *mqtt = calloc(1, sizeof(*mqtt));
    char *topic = strdup(options->topic);
    struct uplink_options uplink = {
        .tls = options->tls,
        .host = options->host,
        .ca_file = options->ca_file,
        .on_up = on_uplink_up,
        .on_data = on_uplink_data,
        .on_down = on_uplink_down,
    };
    int status = mqtt && topic ? uplink_open(&mqtt->uplink, loop, &uplink) : UV_ENOMEM;
    if (status) {
        free(mqtt);
        free(topic);
        return status;
    }
    mqtt->options = *options;
    mqtt->options.topic = topic;
    mqtt->cutter.limit = HEADER_MAX + 2 + topic_length + options->payload_limit;
    mqtt->bucket = bucket_full(options->rate, options->burst, uv_now(loop));
    uv_timer_init(loop, &mqtt->deadline);
    uv_timer_init(loop, &mqtt->tick);
    *out = mqtt;
    return 0;
}

int mqtt_open(uv_loop_t *loop, const struct mqtt_options *options, struct mqtt **out) {
    struct mqtt *mqtt = NULL;
    int status = make(loop, options, &mqtt);
    if (status)
        return status;
    status = open_paho(mqtt, loop);
    if (status) {
        mqtt_close(mqtt, NULL);
        return status;
    }
    mqtt->early = uplink_connect(&mqtt->uplink, options->remote);
    uv_update_time(loop);
    uv_timer_start(&mqtt->deadline, on_deadline, mqtt->early ? 0 : options->connect_timeout_ms, 0);
    hurry(mqtt);
    *out = mqtt;
    return 0;
}

int mqtt_publish(struct mqtt *mqtt, const char *topic, const void *payload, size_t length) {
    if (!mqtt->up)
        return UV_ENOTCONN;
    if (length > mqtt->options.payload_limit || strlen(topic) > MQTT_TOPIC_MAX)
        return UV_EMSGSIZE;
    int status = paho_publish(&mqtt->paho, topic, payload, length);
    if (status)
        return status;
    mqtt->published++;
    hurry(mqtt);
    return 0;
}

const char *mqtt_reason(const struct mqtt *mqtt) {
    return mqtt->uplink.reason;
}

struct mqtt_counters mqtt_counters(const struct mqtt *mqtt) {
    struct mqtt_counters counters = mqtt->counters;
    counters.oversized += mqtt->cutter.oversized;
    counters.overload += mqtt->paho_open ? paho_dropped(&mqtt->paho) : 0;
    return counters;
}

static void closed_one(struct mqtt *mqtt) {
    if (--mqtt->closes)
        return;
    void (*closed)(void *) = mqtt->closed;
    void *arg = mqtt->options.arg;
    mqtt_cutter_free(&mqtt->cutter);
    free((char *)(uintptr_t)mqtt->options.topic);
    free(mqtt);
    if (closed)
        closed(arg);
}

static void on_timer_closed(uv_handle_t *handle) {
    closed_one(container_of(handle, struct mqtt, deadline));
}

static void on_tick_closed(uv_handle_t *handle) {
    closed_one(container_of(handle, struct mqtt, tick));
}

static void on_uplink_closed(struct uplink *uplink) {
    closed_one(container_of(uplink, struct mqtt, uplink));
}

static void on_door_closed(struct door *door) {
    closed_one(container_of(door, struct mqtt, door));
}

static void on_paho_closed(struct paho *paho) {
    closed_one(container_of(paho, struct mqtt, paho));
}

void mqtt_close(struct mqtt *mqtt, void (*closed)(void *arg)) {
    static const uint8_t disconnect[] = {MQTT_DISCONNECT << 4, 0};
    if (mqtt->accepted && !mqtt->over)
        uplink_write(&mqtt->uplink, disconnect, sizeof(disconnect));
    mqtt->closing = true;
    mqtt->closed = closed;
    mqtt->closes += 3;
    uplink_close(&mqtt->uplink, on_uplink_closed);
    uv_close((uv_handle_t *)&mqtt->deadline, on_timer_closed);
    uv_close((uv_handle_t *)&mqtt->tick, on_tick_closed);
    if (mqtt->door_open) {
        mqtt->closes++;
        door_close(&mqtt->door, on_door_closed);
    }
    if (mqtt->paho_open) {
        mqtt->closes++;
        mqtt->paho_open = false;
        paho_close(&mqtt->paho, on_paho_closed);
    }
}

void mqtt_start_early(void) {
    paho_start();
}
