/* mqtt: one connection to one MQTT broker, from its first packet to its end.
 *
 * Provides  struct mqtt
 * Uses      uplink (to the broker), paho (which speaks MQTT), door (where it connects to), bucket
 * Owns      all of them
 *
 *     broker <- TCP or TLS, uplink -> gate <- loopback, door -> paho's threads -> on_message
 *
 * paho's threads are shared by all connections, so nothing that a broker does may reach them (see
 * core/paho.h). The gate in between is this unit. It connects, verifies and waits on the loop; it
 * cuts what the broker sends into packets and lets through what may be said to a client with one
 * subscription at QoS 0, at a bounded rate and size. It answers paho's CONNECT itself, so that
 * CONNECT and SUBSCRIBE leave in one segment (which MQTT 3.1.1, 3.1.4 allows) and being connected
 * costs one round trip after TCP's; waiting for CONNACK costs two. MQTT 3.1.1 and not 5: a broker
 * that knows only 3.1.1 would cost a second connection, and the size limit that 5 could ask for
 * is kept here whatever the broker does. */
#ifndef CORE_MQTT_H
#define CORE_MQTT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#define MQTT_TOPIC_MAX 255

struct mqtt;

struct mqtt_options {
    const struct sockaddr *remote;
    const char *host; /* with TLS: what the certificate must be for */
    bool tls;
    const char *ca_file;  /* PEM, trusted besides what the system trusts; NULL for none */
    const char *topic;    /* 1 to MQTT_TOPIC_MAX bytes, without wildcards */
    size_t payload_limit; /* longer messages are passed over */
    unsigned connect_timeout_ms;
    unsigned keepalive_s; /* a broker that is silent for twice this long is gone; 1 to 65535 */
    uint32_t rate, burst; /* messages a second that are let through; 0 for no limit */

    /* Whether a message is worth a token of that rate; NULL for all. */
    bool (*wanted)(void *arg, const uint8_t *payload, size_t length, bool retained);
    void (*on_message)(void *arg, const uint8_t *payload, size_t length, bool retained);
    void (*on_up)(void *arg);               /* connected and subscribed */
    void (*on_down)(void *arg, int status); /* once; also when it never came up */
    void *arg;
};

struct mqtt_counters {
    uint64_t received;  /* messages that the broker sent */
    uint64_t oversized; /* passed over: longer than payload_limit */
    uint64_t malformed; /* passed over: another topic or QoS */
    uint64_t limited;   /* passed over: more than `rate` */
    uint64_t overload;  /* passed over: a queue was full */
};

/* Begins to connect. Callbacks come on the loop, never from inside a call, and from inside any of
 * them all functions here may be called. Statuses of on_down: UV_ETIMEDOUT, UV_ECONNREFUSED and
 * others of the system's, UV_EOF (the broker ended it), ERR_ETLS, UV_EACCES (the broker refused us
 * or the subscription), UV_EPROTO (it does not speak MQTT). Non-zero, and then nothing is left to
 * close: UV_EINVAL, UV_ENOENT (the CA file cannot be read), UV_ENOMEM, or what the system said. */
int mqtt_open(uv_loop_t *loop, const struct mqtt_options *options, struct mqtt **out);

/* Sends at QoS 0, not retained. 0, UV_ENOTCONN when it is not up, UV_ENOBUFS when 64 messages wait
 * already, UV_EMSGSIZE. */
int mqtt_publish(struct mqtt *mqtt, const char *topic, const void *payload, size_t length);

/* What OpenSSL said when the status was ERR_ETLS, as static text; else NULL. */
const char *mqtt_reason(const struct mqtt *mqtt);

struct mqtt_counters mqtt_counters(const struct mqtt *mqtt);

/* Says goodbye and frees it; no callback comes any more but `closed` (may be NULL). */
void mqtt_close(struct mqtt *mqtt, void (*closed)(void *arg));

/* Readies paho in the background, so that the first connection need not wait for it; to be called
 * first thing. */
void mqtt_start_early(void);

#endif
