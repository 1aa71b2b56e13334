/* paho: paho.mqtt.c's two threads, made to serve one event loop.
 *
 * Provides  struct paho, one MQTT 3.1.1 client of paho's that talks to a port of ours on loopback
 * Uses      paho.mqtt.c (MQTTAsync), libuv; the only unit that knows of paho's threads
 * Owns      paho's handle, and the events that wait to be delivered on the loop's thread
 *
 * paho is one thing per process: a thread that sends and one that receives serve all connections,
 * and all wait while one of them is slow. So it never sees the network: it connects to loopback,
 * where core/mqtt.c stands for the broker, never makes it wait, and hands it nothing but what a
 * broker may say. What is left is put right here:
 *
 * - Its receiving thread polls a list of sockets that is as old as the last wake-up, for up to a
 *   second, and sleeps for 100 ms when nothing came: of itself it sees a new connection after 2.1 s
 *   (1.3.12), and a message may wait for 100 ms. One connection that we keep to ourselves ("the
 *   resident") wakes it whenever we like, and twice a second anyway, so that it never sleeps. It
 *   lives as long as the process, so that paho never joins its threads.
 *
 * - Its sending thread waits on a condition without looking again, so that a wake-up can be lost
 *   for a second: what is not sent soon is asked for again (paho_wake).
 *
 * - Its threads get a number instead of a pointer, so that what they say after a close finds
 *   nobody. A library that uses it must stay in memory: link with -z nodelete. */
#ifndef CORE_PAHO_H
#define CORE_PAHO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#define PAHO_CLIENT_ID_LENGTH 23 /* what each broker must take (MQTT 3.1.1, 3.1.3.1) */

struct paho;

struct paho_options {
    uint16_t port;         /* on 127.0.0.1 */
    const char *client_id; /* PAHO_CLIENT_ID_LENGTH letters and digits */
    const char *topic;     /* subscribed at QoS 0 as soon as it is connected */
    unsigned keepalive_s;
    size_t queue_count, queue_bytes; /* messages that may wait for the loop */

    /* On the loop's thread, never from inside a call. on_down comes once, and nothing after it. */
    void (*on_subscribed)(struct paho *paho);
    void (*on_down)(struct paho *paho, int status);
    void (*on_message)(struct paho *paho, const uint8_t *payload, size_t length, bool retained);
};

struct paho_event;

struct paho {
    uv_async_t async;
    struct paho_options options;
    char *topic;
    void *handle; /* MQTTAsync; NULL once it is closed */
    uint64_t id;
    struct paho *next; /* among those that paho's threads may speak to */
    struct paho_event *first, *last;
    size_t count, bytes;
    uint64_t dropped;
    bool down;
    void (*closed)(struct paho *paho);
};

/* Starts paho's threads and the resident in the background, once; returns at once. paho_open calls
 * it too. */
void paho_start(void);

/* Makes a client ID that nobody guesses. */
void paho_client_id(char id[PAHO_CLIENT_ID_LENGTH + 1]);

/* Connects. 0, UV_ENOMEM or UV_EIO; then nothing is left to close. */
int paho_open(struct paho *paho, uv_loop_t *loop, const struct paho_options *options);

/* Queues a message at QoS 0, not retained. 0, UV_ENOTCONN, UV_ENOBUFS (64 wait already) or UV_EIO.
 */
int paho_publish(struct paho *paho, const char *topic, const void *payload, size_t length);

/* Messages for which the queue had no room. */
uint64_t paho_dropped(const struct paho *paho);

/* Ends it: no callback comes any more but `closed`. Waits for paho's lock, which is never held for
 * long (see above). */
void paho_close(struct paho *paho, void (*closed)(struct paho *paho));

/* Makes paho look for work now: the receiving thread at its list of sockets; from the second
 * attempt at the same piece of work on (counted from 0) the sending thread too. */
void paho_wake(unsigned attempt);

#endif
