/* The integrity of STUN messages: HMAC-SHA1 with a key that both sides know (RFC 8489, 14.5). */
#include "core/bytes.h"
#include "core/crypto.h"
#include "core/stun_msg.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>

#define INTEGRITY_SIZE 20  /* SHA-1 */
#define INTEGRITY_WHOLE 24 /* with type and length */

/* These fail only for want of memory: what is no hash must not be taken for one. */
static void must(int condition) {
    if (!condition)
        abort();
}

/* Over all that stands before the attribute, with the message's length as if it ended with it. */
static void integrity(const uint8_t *bytes, size_t at, const void *key, size_t key_length,
                      uint8_t out[INTEGRITY_SIZE]) {
    uint8_t *covered = malloc(at);
    must(covered != NULL);
    memcpy(covered, bytes, at);
    put_u16(covered + 2, (uint16_t)(at + INTEGRITY_WHOLE - STUN_HEADER_SIZE));
    must(HMAC(EVP_sha1(), key, (int)key_length, covered, at, out, NULL) != NULL);
    free(covered);
}

void stun_write_integrity(struct stun_writer *writer, const void *key, size_t key_length) {
    static const uint8_t room[INTEGRITY_SIZE];
    size_t at = writer->length;
    stun_write_bytes(writer, STUN_MESSAGE_INTEGRITY, room, sizeof room);
    if (writer->length)
        integrity(writer->bytes, at, key, key_length, writer->bytes + at + 4);
}

bool stun_msg_is_by(const uint8_t *bytes, const struct stun_msg *msg, const void *key,
                    size_t key_length) {
    uint8_t wanted[INTEGRITY_SIZE];
    if (msg->integrity == 0)
        return false;
    integrity(bytes, msg->integrity, key, key_length, wanted);
    return crypto_equal(wanted, bytes + msg->integrity + 4, sizeof wanted);
}

void stun_key(const char *user, const char *realm, const char *password,
              uint8_t out[STUN_KEY_SIZE]) {
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    must(context && EVP_DigestInit_ex(context, EVP_md5(), NULL));
    must(EVP_DigestUpdate(context, user, strlen(user)) && EVP_DigestUpdate(context, ":", 1));
    must(EVP_DigestUpdate(context, realm, strlen(realm)) && EVP_DigestUpdate(context, ":", 1));
    must(EVP_DigestUpdate(context, password, strlen(password)));
    must(EVP_DigestFinal_ex(context, out, NULL));
    EVP_MD_CTX_free(context);
}
