/* uplink: a stream of bytes to a server, by TCP or by TLS with a certificate for the server's name.
 *
 * Provides  struct uplink
 * Uses      stream, libuv, OpenSSL, err
 * Owns      its socket and, with TLS, its session; what is trusted is shared by all
 *
 * Connects to an address; names are resolved elsewhere. With TLS (1.2 or later) the certificate
 * must be valid for `host` (RFC 6125; for an IP address its iPAddress entry), which is what the
 * user wrote, and SNI (RFC 6066, 3) says it too. No timeout of its own. Callbacks come on the loop,
 * never from inside a call; after on_down or uplink_close none comes, and from inside any of them
 * uplink_close is allowed. */
#ifndef CORE_UPLINK_H
#define CORE_UPLINK_H

#include <openssl/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#define UPLINK_QUEUE_LIMIT (256 * 1024) /* bytes that may wait for the network */

struct uplink;
struct trust;

struct uplink_options {
    bool tls;
    const char
        *host; /* what the certificate must be for, a name or an address; unused without TLS */
    const char *ca_file; /* PEM, trusted besides what the system trusts; NULL for none */
    void (*on_up)(struct uplink *uplink);
    void (*on_data)(struct uplink *uplink, const uint8_t *bytes, size_t length);
    void (*on_down)(struct uplink *uplink, int status); /* once; UV_EOF when the server ended it */
};

struct uplink {
    uv_tcp_t tcp;
    uv_connect_t connect;
    struct uplink_options options; /* its pointers are of use in uplink_open alone */
    struct trust *trust;
    SSL *ssl;           /* NULL without TLS */
    const char *reason; /* static text: why TLS failed; NULL when it did not */
    size_t appetite;    /* bytes that a read takes at most, without TLS; 0: as many as there are */
    bool up, over, closing;
    void (*closed)(struct uplink *uplink);
};

/* Prepares it. After 0 it must be closed. After UV_EINVAL (the host can be in no certificate),
 * UV_ENOENT (the CA file cannot be read) or UV_ENOMEM nothing is left to close. */
int uplink_open(struct uplink *uplink, uv_loop_t *loop, const struct uplink_options *options);

/* Connects, once. Non-zero is what the system said at once. */
int uplink_connect(struct uplink *uplink, const struct sockaddr *remote);

/* Sends, or queues. 0, UV_ENOTCONN, UV_ENOBUFS (UPLINK_QUEUE_LIMIT), UV_ENOMEM. */
int uplink_write(struct uplink *uplink, const void *bytes, size_t length);

/* Between these two nothing is read: the server has to wait. What was read before still comes. */
void uplink_pause(struct uplink *uplink);
void uplink_resume(struct uplink *uplink);

/* What was written before still goes out if the system takes it at once. */
void uplink_close(struct uplink *uplink, void (*closed)(struct uplink *uplink));

#endif
