/* tls: TLS 1.3 (RFC 8446) between two node keys, over bytes that somebody else carries.
 *
 * Provides  struct tls_identity: what OpenSSL is told, once per node; struct tls: one session
 * Uses      OpenSSL, key, outbox, suite, warm
 * Owns      the certificate and both contexts (identity); the SSL object (session)
 * Each side shows a certificate that it signed itself. Chains mean nothing: the P-256 key in the
 * certificate is who the peer is, and CertificateVerify (RFC 8446, 4.4.3) proves that it holds the
 * key. No resumption, no tickets, no early data. Touches no socket: ciphertext comes in by tls_feed
 * and leaves through the outbox. */
#ifndef CORE_TLS_H
#define CORE_TLS_H

#include "core/outbox.h"
#include "core/warm.h"
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define TLS_KEY_SIZE 33           /* a compressed P-256 point (SEC 1, 2.3.3) */
#define TLS_HANDSHAKE_LIMIT 16384 /* bytes that a peer may send before it has proven its key */

struct tls_identity;

enum tls_role { TLS_CLIENT, TLS_SERVER };

struct tls {
    SSL *ssl;
    struct warmth warmth;
    const uint8_t *in; /* ciphertext not yet consumed; the owner's memory */
    size_t in_length;
    bool ended;       /* no more will be fed */
    bool finished;    /* both keys are proven */
    bool expects;     /* `expected` counts */
    bool shown;       /* `peer` is the key that the peer showed */
    bool mismatch;    /* and it is not the expected one */
    int over;         /* what every further tls_read returns, once it is not 0 */
    size_t allowance; /* bytes that the handshake may still consume */
    uint8_t peer[TLS_KEY_SIZE];
    uint8_t expected[TLS_KEY_SIZE];
    const char *reason; /* OpenSSL's own words for what failed, or NULL */
    struct outbox *out; /* where ciphertext goes */
    struct tls_identity *identity;
};

/* Makes the certificate of `key` (P-256, with its private part; a reference is taken) and the
 * contexts. 0, UV_EINVAL for another kind of key, UV_ENOMEM. One reference is the caller's; each
 * session holds one of its own. */
int tls_identity_new(EVP_PKEY *key, struct tls_identity **out);
struct tls_identity *tls_identity_keep(struct tls_identity *identity);
void tls_identity_drop(struct tls_identity *identity);
const uint8_t *tls_identity_key(const struct tls_identity *identity); /* TLS_KEY_SIZE bytes */

/* Begins a session (what was fed before stays); `expected` is the key that the peer must prove, or
 * NULL for any. 0 or UV_ENOMEM. */
int tls_begin(struct tls *tls, struct tls_identity *identity, enum tls_role role,
              const uint8_t *expected, struct outbox *out);

/* The ciphertext to consume next; stays the caller's. What is left afterwards is in `in` and
 * `in_length`. */
void tls_feed(struct tls *tls, const uint8_t *bytes, size_t length);

/* 0 once both sides have proven their keys, UV_EAGAIN for more input, or an error: ERR_EPEER
 * (another key than expected, here or there), ERR_ETLS, UV_ECONNRESET (ended before it was done).
 * Alerts that say so lie in the outbox. */
int tls_handshake(struct tls *tls);

/* Plaintext bytes (> 0), UV_EAGAIN, UV_EOF after close_notify, UV_ECONNRESET when cut off without
 * one, or an error. */
ssize_t tls_read(struct tls *tls, void *buffer, size_t size);
bool tls_pending(const struct tls *tls); /* plaintext of a record that was read in part */

int tls_write(struct tls *tls, const void *bytes,
              size_t length);      /* 0 or an error; takes everything */
void tls_goodbye(struct tls *tls); /* close_notify (RFC 8446, 6.1), once */
void tls_end(struct tls *tls);

#endif
