/* key: the node's secret key, and public keys of others, on the curve P-256.
 *
 * Provides  struct key: make, read, write, agree, sign; public keys as 33 bytes and as node ids
 * Uses      OpenSSL, bytes, crypto
 * Owns      the EVP_PKEY, by counted references
 * A public key is always the 33 bytes of its compressed point (SEC 1, 2.3.3); bytes that are no
 * point of the curve are refused wherever they come in. Safe to call from any thread. */
#ifndef CORE_KEY_H
#define CORE_KEY_H

#include "core/crypto.h"

#include <openssl/types.h>

#define KEY_PUBLIC_SIZE 33
#define KEY_SECRET_SIZE 32
#define KEY_ID_SIZE 46 /* a node id: 44 or 45 characters of base58btc, and the final NUL */
#define KEY_PEM_SIZE 512
#define KEY_SIGNATURE_SIZE 64 /* r and s, 32 bytes each, big-endian */

struct key;

/* Makes a new key. 0 or UV_ENOMEM. */
int key_generate(struct key **out);

/* The key whose secret is this big-endian number. UV_EINVAL when it is 0 or not below the order of
 * the curve. */
int key_from_secret(const uint8_t secret[KEY_SECRET_SIZE], struct key **out);

/* Reads a private key in PEM (PKCS 8 or SEC 1, not encrypted). UV_EINVAL when it is anything else
 * than one of P-256. */
int key_from_pem(const char *pem, size_t length, struct key **out);

/* Writes PKCS 8 in PEM and the final NUL; the caller wipes it with crypto_wipe. Returns its length
 * or UV_ENOMEM. */
int key_to_pem(const struct key *key, char out[KEY_PEM_SIZE]);

/* Keys are counted: each key_keep wants its key_drop, and the last drop wipes it. key_drop(NULL)
 * does nothing. */
struct key *key_keep(struct key *key);
void key_drop(struct key *key);

const uint8_t *key_public(const struct key *key); /* KEY_PUBLIC_SIZE bytes */
const char *key_id(const struct key *key);        /* the node id, a C string */
EVP_PKEY *key_pkey(const struct key *key);        /* stays the key's */

/* The shared x coordinate with another's public key (ECDH; SEC 1, 3.3.1). UV_EINVAL when it is no
 * point. */
int key_agree(const struct key *key, const uint8_t other[KEY_PUBLIC_SIZE], uint8_t out[32]);

/* ECDSA (FIPS 186-5, 6) over a SHA-256 digest. key_verify returns whether `signature` holds for
 * that public key. */
int key_sign(const struct key *key, const uint8_t digest[SHA256_SIZE],
             uint8_t out[KEY_SIGNATURE_SIZE]);
bool key_verify(const uint8_t public_key[KEY_PUBLIC_SIZE], const uint8_t digest[SHA256_SIZE],
                const uint8_t signature[KEY_SIGNATURE_SIZE]);

/* The public key of any EVP_PKEY, as a peer's certificate holds it. UV_EINVAL when it is not one of
 * P-256. */
int public_from_pkey(const EVP_PKEY *pkey, uint8_t out[KEY_PUBLIC_SIZE]);

/* Whether these bytes are a point of the curve. */
bool public_check(const uint8_t public_key[KEY_PUBLIC_SIZE]);

/* A public key as a node id and back. The id of bytes is written without a look at the curve; an id
 * is read only when it stands for a point of the curve, else UV_EINVAL. */
void node_id_format(const uint8_t public_key[KEY_PUBLIC_SIZE], char out[KEY_ID_SIZE]);
int node_id_parse(const char *text, size_t length, uint8_t out[KEY_PUBLIC_SIZE]);

#endif
