#include "core/crypto.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

/* Looking an algorithm up by name takes longer than most of them take on a message. */
static struct {
    uv_once_t once;
    EVP_MD *sha256;
    EVP_MAC *hmac;
    EVP_KDF *hkdf;
    EVP_CIPHER *aes_gcm;
} algorithms = {.once = UV_ONCE_INIT};

/* What cannot fail but for want of memory, or a broken installation of OpenSSL, must not be taken
 * for a result. */
static void must(int condition) {
    if (!condition)
        abort();
}

static void fetch(void) {
    algorithms.sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    algorithms.hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    algorithms.hkdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    algorithms.aes_gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    must(algorithms.sha256 && algorithms.hmac && algorithms.hkdf && algorithms.aes_gcm);
}

void sha256(const struct piece *pieces, size_t count, uint8_t out[SHA256_SIZE]) {
    uv_once(&algorithms.once, fetch);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    must(context && EVP_DigestInit_ex2(context, algorithms.sha256, NULL));
    for (size_t i = 0; i < count; i++)
        must(EVP_DigestUpdate(context, pieces[i].bytes, pieces[i].length));
    must(EVP_DigestFinal_ex(context, out, NULL));
    EVP_MD_CTX_free(context);
}

void hmac_sha256(const void *key, size_t key_length, const struct piece *pieces, size_t count,
                 uint8_t out[SHA256_SIZE]) {
    uv_once(&algorithms.once, fetch);
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    EVP_MAC_CTX *context = EVP_MAC_CTX_new(algorithms.hmac);
    must(context && EVP_MAC_init(context, key, key_length, params));
    for (size_t i = 0; i < count; i++)
        must(EVP_MAC_update(context, pieces[i].bytes, pieces[i].length));
    must(EVP_MAC_final(context, out, NULL, SHA256_SIZE));
    EVP_MAC_CTX_free(context);
}

/* OpenSSL's parameters are not const, though it only reads these. */
static OSSL_PARAM octets(const char *name, const void *bytes, size_t length) {
    return OSSL_PARAM_construct_octet_string(name, (void *)(uintptr_t)bytes, length);
}

void hkdf_sha256(const void *secret, size_t secret_length, const void *salt, size_t salt_length,
                 const void *info, size_t info_length, uint8_t *out, size_t out_length) {
    uv_once(&algorithms.once, fetch);
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
        octets(OSSL_KDF_PARAM_KEY, secret, secret_length),
        octets(OSSL_KDF_PARAM_SALT, salt, salt_length),
        octets(OSSL_KDF_PARAM_INFO, info, info_length),
        OSSL_PARAM_construct_end(),
    };
    EVP_KDF_CTX *context = EVP_KDF_CTX_new(algorithms.hkdf);
    must(context && EVP_KDF_derive(context, out, out_length, params) > 0);
    EVP_KDF_CTX_free(context);
}

void aead_seal(const uint8_t key[32], const uint8_t nonce[12], const void *aad, size_t aad_length,
               const uint8_t *in, size_t length, uint8_t *out) {
    uv_once(&algorithms.once, fetch);
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    int written;
    must(context && EVP_EncryptInit_ex2(context, algorithms.aes_gcm, key, nonce, NULL));
    must(EVP_EncryptUpdate(context, NULL, &written, aad, (int)aad_length));
    must(EVP_EncryptUpdate(context, out, &written, in, (int)length));
    must(EVP_EncryptFinal_ex(context, out + length, &written));
    must(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, AEAD_TAG_SIZE, out + length));
    EVP_CIPHER_CTX_free(context);
}

bool aead_open(const uint8_t key[32], const uint8_t nonce[12], const void *aad, size_t aad_length,
               const uint8_t *in, size_t length, uint8_t *out) {
    if (length < AEAD_TAG_SIZE)
        return false;
    uv_once(&algorithms.once, fetch);
    uint8_t tag[AEAD_TAG_SIZE];
    memcpy(tag, in + length - sizeof tag, sizeof tag);
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    int written;
    must(context && EVP_DecryptInit_ex2(context, algorithms.aes_gcm, key, nonce, NULL));
    must(EVP_DecryptUpdate(context, NULL, &written, aad, (int)aad_length));
    must(EVP_DecryptUpdate(context, out, &written, in, (int)(length - sizeof tag)));
    must(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, AEAD_TAG_SIZE, tag));
    bool held = EVP_DecryptFinal_ex(context, out + length - sizeof tag, &written) == 1;
    EVP_CIPHER_CTX_free(context);
    if (!held)
        crypto_wipe(out, length - sizeof tag);
    return held;
}

void crypto_random(void *out, size_t length) {
    must(RAND_bytes(out, (int)length) == 1);
}

void crypto_wipe(void *secret, size_t length) {
    OPENSSL_cleanse(secret, length);
}

bool crypto_equal(const void *a, const void *b, size_t length) {
    return CRYPTO_memcmp(a, b, length) == 0;
}
