/* seal: a message that only one key can read and that only one key can have written.
 *
 * Provides  seal and seal_open, layout version 1
 * Uses      key, crypto, bytes, err
 * Pure: the time is an argument. Neither recipient nor sender can be seen from outside.
 *
 *   sealed    0         1                   34                        length - 16
 *             +---------+-------------------+-------------------------+----------+
 *             | 1       | ephemeral key, 33 | ciphertext              | tag, 16  |
 *             +---------+-------------------+-------------------------+----------+
 *              version   P-256, compressed   AES-256-GCM; the first 34 bytes are its associated
 * data
 *
 *   plaintext 0                33              41         57                 121
 *             +----------------+---------------+----------+------------------+--------+
 *             | sender key, 33 | time, ms, u64 | id, 16   | signature, 64    | body   |
 *             +----------------+---------------+----------+------------------+--------+
 *              P-256            since 1970, BE   random     ECDSA, r then s
 *
 *   key (32) and nonce (12) = HKDF-SHA256(ECDH x of ephemeral and recipient,
 *                                         salt: ephemeral, recipient; info: "p2pd-lua seal 1")
 *   signed                  = SHA-256("p2pd-lua sign 1", ephemeral, recipient, sender, time, id,
 * body) */
#ifndef CORE_SEAL_H
#define CORE_SEAL_H

#include "core/key.h"

#define SEAL_VERSION 1
#define SEAL_ID_SIZE 16
#define SEAL_OVERHEAD (1 + KEY_PUBLIC_SIZE + SEAL_PLAIN_OVERHEAD + AEAD_TAG_SIZE) /* 171 */
#define SEAL_PLAIN_OVERHEAD (KEY_PUBLIC_SIZE + 8 + SEAL_ID_SIZE + KEY_SIGNATURE_SIZE)
#define SEAL_MAX_MESSAGE 8192 /* sealed, in bytes */
#define SEAL_MAX_BODY (SEAL_MAX_MESSAGE - SEAL_OVERHEAD)

struct seal_message {
    uint8_t sender[KEY_PUBLIC_SIZE];
    uint8_t id[SEAL_ID_SIZE];
    uint64_t time_ms;
    const uint8_t *body; /* lies in the caller's buffer */
    size_t body_length;
    const uint8_t *ephemeral, *signature; /* for seal_verify */
};

/* Seals `body` to the key `recipient`, signed by `sender`; SEAL_OVERHEAD + length bytes go to
 * `out`. 0, UV_EMSGSIZE when the body is longer than SEAL_MAX_BODY, UV_EINVAL when the recipient is
 * no point, UV_ENOMEM. */
int seal(const struct key *sender, const uint8_t recipient[KEY_PUBLIC_SIZE], uint64_t time_ms,
         const uint8_t id[SEAL_ID_SIZE], const void *body, size_t length, uint8_t *out);

/* The same with a given ephemeral key, for vectors. A key used for two messages gives both away. */
int seal_with(const struct key *ephemeral, const struct key *sender,
              const uint8_t recipient[KEY_PUBLIC_SIZE], uint64_t time_ms,
              const uint8_t id[SEAL_ID_SIZE], const void *body, size_t length, uint8_t *out);

/* Opens what was sealed to `key` into `buffer`, where the body stays. Nothing in *out is proven
 * yet, but enough is known to drop a copy. UV_EMSGSIZE, ERR_EFORMAT (too short, another version, a
 * point that is none), or ERR_EFOREIGN (sealed to another key, or damaged). */
int seal_decrypt(const struct key *key, const uint8_t *bytes, size_t length,
                 uint8_t buffer[SEAL_MAX_MESSAGE], struct seal_message *out);

/* Whether what seal_decrypt opened was written by its sender: 0 or ERR_EFORGED. */
int seal_verify(const struct key *key, const struct seal_message *message);

/* Both steps. */
int seal_open(const struct key *key, const uint8_t *bytes, size_t length,
              uint8_t buffer[SEAL_MAX_MESSAGE], struct seal_message *out);

#endif
