#include "core/suite.h"
#include "spec/c/check.h"

#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <string.h>

#define SEALED 32 /* a block and its tag */

static bool offers_cipher(const char *name) {
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(suite_context(), name, NULL);
    EVP_CIPHER_free(cipher);
    return cipher != NULL;
}

static bool offers_key(const char *name) {
    EVP_KEYMGMT *kind = EVP_KEYMGMT_fetch(suite_context(), name, NULL);
    EVP_KEYMGMT_free(kind);
    return kind != NULL;
}

static void it_is_there_and_the_same_each_time(void) {
    CHECK(suite_context() != NULL);
    CHECK(suite_context() == suite_context());
}

static void it_offers_what_pipes_need(void) {
    CHECK(offers_cipher("AES-128-GCM"));
    CHECK(offers_cipher("ChaCha20-Poly1305"));
    CHECK(offers_key("EC"));
    CHECK(offers_key("X25519"));
}

static void it_offers_nothing_else(void) {
    CHECK(!offers_cipher("AES-128-CBC"));
    CHECK(!offers_key("RSA"));
    CHECK(!offers_key("ED25519"));
}

static void sessions_in_it_have_the_suites_of_tls_1_3(void) {
    SSL_CTX *context = SSL_CTX_new_ex(suite_context(), NULL, TLS_method());
    CHECK(context != NULL);
    CHECK_EQ(SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION), 1);
    SSL *ssl = SSL_new(context);
    STACK_OF(SSL_CIPHER) *ciphers = SSL_get1_supported_ciphers(ssl);
    CHECK(sk_SSL_CIPHER_num(ciphers) >= 3); /* RFC 8446, B.4 */
    sk_SSL_CIPHER_free(ciphers);
    SSL_free(ssl);
    SSL_CTX_free(context);
}

/* Returns the length of the tag, or -1. */
static int seal(OSSL_LIB_CTX *library, unsigned char sealed[SEALED]) {
    static const unsigned char key[16] = "0123456789abcdef", nonce[12] = "a nonce here";
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(library, "AES-128-GCM", NULL);
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    int length = 0, more = 0, tag = -1;
    if (EVP_EncryptInit_ex2(context, cipher, key, nonce, NULL) == 1 &&
        EVP_CIPHER_CTX_get_iv_length(context) == sizeof nonce &&
        EVP_CIPHER_CTX_get_key_length(context) == sizeof key &&
        EVP_EncryptUpdate(context, sealed, &length, key, sizeof key) == 1 &&
        EVP_EncryptFinal_ex(context, sealed + length, &more) == 1 &&
        EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, 16, sealed + length) == 1)
        tag = EVP_CIPHER_CTX_get_tag_length(context);
    EVP_CIPHER_CTX_free(context);
    EVP_CIPHER_free(cipher);
    return tag;
}

static void its_gcm_is_the_default_one(void) {
    unsigned char sealed[SEALED] = {0}, expected[SEALED] = {1};
    CHECK_EQ(seal(suite_context(), sealed), 16);
    CHECK_EQ(seal(NULL, expected), 16);
    CHECK(memcmp(sealed, expected, SEALED) == 0);
}

int main(void) {
    RUN(it_is_there_and_the_same_each_time);
    RUN(it_offers_what_pipes_need);
    RUN(it_offers_nothing_else);
    RUN(its_gcm_is_the_default_one);
    RUN(sessions_in_it_have_the_suites_of_tls_1_3);
    return check_report();
}
