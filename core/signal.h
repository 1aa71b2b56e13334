/* signal: the sealed messages of one node, over its connections to brokers.
 *
 * Provides  struct signal, and struct signal_link for each connection
 * Uses      mqtt, seal, inbox, crypto, bucket, err
 * Owns      its links, what they received and nobody opened yet, and one reference to the key
 *
 * A message reaches on_message when it is sealed to our key, signed by its sender, fresh and new;
 * all else is counted. To open one costs about 0.2 ms, so strangers must not choose how many are:
 * each link has a queue and a rate of its own, the queues are served in turn, a few messages per
 * round of the loop, and for all of them together at most a fifth of the time. Callbacks come on
 * the loop, never from inside a call, and from inside any of them all functions here may be
 * called. */
#ifndef CORE_SIGNAL_H
#define CORE_SIGNAL_H

#include "core/inbox.h"

#include <uv.h>

#define SIGNAL_LINKS_MAX 64

struct signal;
struct signal_link;

struct signal_options {
    struct key *key;
    void (*on_message)(void *arg, const struct seal_message *message);

    /* Proven, but with a time that is not accepted; `skew_ms` is the sender's clock minus ours. A
     * few a second at most. */
    void (*on_stale)(void *arg, const struct seal_message *message, int64_t skew_ms);
    void *arg;
    int64_t clock_error_ms; /* added to what the machine's clock says, to try wrong clocks */
};

struct signal_link_options {
    const struct sockaddr *remote;
    bool tls;
    const char *host;    /* with TLS: what the certificate must be for */
    const char *ca_file; /* PEM, trusted besides what the system trusts; NULL for none */
    unsigned connect_timeout_ms;
    void (*on_up)(void *arg);
    void (*on_down)(void *arg, int status); /* once; also when it never came up; see core/mqtt.h */
    void *arg;
};

/* 0 or UV_ENOMEM. */
int signal_new(uv_loop_t *loop, const struct signal_options *options, struct signal **out);

/* What messages say that the time is: milliseconds since 1970, corrected. */
uint64_t signal_time_ms(const struct signal *signal);

/* Connects to a broker and listens there on our node id. Non-zero: as of mqtt_open, or UV_EMFILE
 * (SIGNAL_LINKS_MAX). */
int signal_link(struct signal *signal, const struct signal_link_options *options,
                struct signal_link **out);

/* Ends the connection; no callback of it comes any more. */
void signal_link_close(struct signal_link *link);

/* What OpenSSL said when it went down with ERR_ETLS, as static text; else NULL. */
const char *signal_link_reason(const struct signal_link *link);

/* Seals `body` to the node `to` and gives it to those of the links that are up; the copies have one
 * id. How many took it (> 0), UV_ENOTCONN for none, UV_EMSGSIZE (over SEAL_MAX_BODY), UV_EINVAL
 * (`to` is no public key), UV_ENOBUFS (all of them have too much to send), UV_ENOMEM. */
int signal_send(struct signal *signal, const uint8_t to[KEY_PUBLIC_SIZE], const void *body,
                size_t length, int64_t skew_ms, struct signal_link *const links[], size_t count,
                uint8_t id[SEAL_ID_SIZE]);

/* What must be added to this machine's clock, its error included. */
void signal_set_clock_offset(struct signal *signal, int64_t offset_ms);

/* Counts of all links, of those that are gone too. */
void signal_counters(const struct signal *signal, struct inbox_counters *out);

/* Closes the links and frees it, by and by; `closed` may be NULL. */
void signal_close(struct signal *signal, void (*closed)(void *arg));

#endif
