/* crypto: hashes, key derivation, authenticated encryption and randomness, by OpenSSL 3.
 *
 * Provides  SHA-256, HMAC, HKDF, AES-256-GCM, random bytes; wipe and compare for secrets
 * Uses      OpenSSL
 * Owns      the algorithms, fetched once per process
 * Pure but for randomness, and safe to call from any thread. What can fail only for want of memory
 * aborts the process: a hash that is none must not be taken for one. */
#ifndef CORE_CRYPTO_H
#define CORE_CRYPTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHA256_SIZE 32

/* A piece of what is hashed; lists end at `count`. */
struct piece {
    const void *bytes;
    size_t length;
};

void sha256(const struct piece *pieces, size_t count, uint8_t out[SHA256_SIZE]);
void hmac_sha256(const void *key, size_t key_length, const struct piece *pieces, size_t count,
                 uint8_t out[SHA256_SIZE]);

/* HKDF with SHA-256 (RFC 5869); at most 255 * 32 bytes come out. */
void hkdf_sha256(const void *secret, size_t secret_length, const void *salt, size_t salt_length,
                 const void *info, size_t info_length, uint8_t *out, size_t out_length);

/* AES-256-GCM (NIST SP 800-38D) with a 16-byte tag after the ciphertext: `length` bytes become
 * length + 16 and back. aead_open returns false when the tag does not hold; `out` holds nothing of
 * use then. */
#define AEAD_TAG_SIZE 16
void aead_seal(const uint8_t key[32], const uint8_t nonce[12], const void *aad, size_t aad_length,
               const uint8_t *in, size_t length, uint8_t *out);
bool aead_open(const uint8_t key[32], const uint8_t nonce[12], const void *aad, size_t aad_length,
               const uint8_t *in, size_t length, uint8_t *out);

void crypto_random(void *out, size_t length);
void crypto_wipe(void *secret, size_t length);
bool crypto_equal(const void *a, const void *b, size_t length); /* in constant time */

#endif
