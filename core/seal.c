#include "core/seal.h"

#include "core/bytes.h"
#include "core/err.h"

#include <string.h>

enum {
    HEADER_SIZE = 1 + KEY_PUBLIC_SIZE,
    TIME_AT = KEY_PUBLIC_SIZE,
    ID_AT = TIME_AT + 8,
    SIGNATURE_AT = ID_AT + SEAL_ID_SIZE,
};

static const char seal_label[] = "p2pd-lua seal 1", sign_label[] = "p2pd-lua sign 1";

struct secrets {
    uint8_t key[32], nonce[12];
};

/* `own` is the ephemeral key where a message is sealed, the recipient's where it is opened; `other`
 * is the public half of the other one. */
static int derive(const struct key *own, const uint8_t *other, const uint8_t *ephemeral,
                  const uint8_t *recipient, struct secrets *out) {
    uint8_t shared[32], salt[2 * KEY_PUBLIC_SIZE];
    int status = key_agree(own, other, shared);
    if (status != 0)
        return status;
    memcpy(salt, ephemeral, KEY_PUBLIC_SIZE);
    memcpy(salt + KEY_PUBLIC_SIZE, recipient, KEY_PUBLIC_SIZE);
    hkdf_sha256(shared, sizeof shared, salt, sizeof salt, seal_label, sizeof seal_label - 1,
                (uint8_t *)out, sizeof *out);
    crypto_wipe(shared, sizeof shared);
    return 0;
}

/* `plain` begins with sender, time and id, as they lie in the message. */
static void signed_digest(const uint8_t *ephemeral, const uint8_t *recipient, const uint8_t *plain,
                          const void *body, size_t length, uint8_t out[SHA256_SIZE]) {
    const struct piece pieces[] = {
        {sign_label, sizeof sign_label - 1},
        {ephemeral, KEY_PUBLIC_SIZE},
        {recipient, KEY_PUBLIC_SIZE},
        {plain, SIGNATURE_AT},
        {body, length},
    };
    sha256(pieces, sizeof pieces / sizeof pieces[0], out);
}

int seal_with(const struct key *ephemeral, const struct key *sender,
              const uint8_t recipient[KEY_PUBLIC_SIZE], uint64_t time_ms,
              const uint8_t id[SEAL_ID_SIZE], const void *body, size_t length, uint8_t *out) {
    if (length > SEAL_MAX_BODY)
        return UV_EMSGSIZE;
    const uint8_t *point = key_public(ephemeral);
    struct secrets secrets;
    int status = derive(ephemeral, recipient, point, recipient, &secrets);
    if (status != 0)
        return status;
    out[0] = SEAL_VERSION;
    memcpy(out + 1, point, KEY_PUBLIC_SIZE);
    uint8_t *plain = out + HEADER_SIZE;
    memcpy(plain, key_public(sender), KEY_PUBLIC_SIZE);
    put_u64(plain + TIME_AT, time_ms);
    memcpy(plain + ID_AT, id, SEAL_ID_SIZE);
    if (length > 0)
        memcpy(plain + SEAL_PLAIN_OVERHEAD, body, length);
    uint8_t digest[SHA256_SIZE];
    signed_digest(point, recipient, plain, body, length, digest);
    status = key_sign(sender, digest, plain + SIGNATURE_AT);
    if (status == 0)
        aead_seal(secrets.key, secrets.nonce, out, HEADER_SIZE, plain, SEAL_PLAIN_OVERHEAD + length,
                  plain);
    crypto_wipe(&secrets, sizeof secrets);
    return status;
}

int seal(const struct key *sender, const uint8_t recipient[KEY_PUBLIC_SIZE], uint64_t time_ms,
         const uint8_t id[SEAL_ID_SIZE], const void *body, size_t length, uint8_t *out) {
    struct key *ephemeral;
    int status = key_generate(&ephemeral);
    if (status != 0)
        return status;
    status = seal_with(ephemeral, sender, recipient, time_ms, id, body, length, out);
    key_drop(ephemeral);
    return status;
}

int seal_decrypt(const struct key *key, const uint8_t *bytes, size_t length,
                 uint8_t buffer[SEAL_MAX_MESSAGE], struct seal_message *out) {
    if (length > SEAL_MAX_MESSAGE)
        return UV_EMSGSIZE;
    if (length < SEAL_OVERHEAD || bytes[0] != SEAL_VERSION)
        return ERR_EFORMAT;
    const uint8_t *ephemeral = bytes + 1;
    struct secrets secrets;
    int status = derive(key, ephemeral, ephemeral, key_public(key), &secrets);
    if (status != 0)
        return status == UV_EINVAL ? ERR_EFORMAT : status;
    bool opened = aead_open(secrets.key, secrets.nonce, bytes, HEADER_SIZE, bytes + HEADER_SIZE,
                            length - HEADER_SIZE, buffer);
    crypto_wipe(&secrets, sizeof secrets);
    if (!opened)
        return ERR_EFOREIGN;
    *out = (struct seal_message){
        .time_ms = get_u64(buffer + TIME_AT),
        .body = buffer + SEAL_PLAIN_OVERHEAD,
        .body_length = length - SEAL_OVERHEAD,
        .ephemeral = ephemeral,
        .signature = buffer + SIGNATURE_AT,
    };
    memcpy(out->sender, buffer, KEY_PUBLIC_SIZE);
    memcpy(out->id, buffer + ID_AT, SEAL_ID_SIZE);
    return 0;
}

int seal_verify(const struct key *key, const struct seal_message *message) {
    uint8_t digest[SHA256_SIZE];
    const uint8_t *plain = message->signature - SIGNATURE_AT;
    signed_digest(message->ephemeral, key_public(key), plain, message->body, message->body_length,
                  digest);
    return key_verify(message->sender, digest, message->signature) ? 0 : ERR_EFORGED;
}

int seal_open(const struct key *key, const uint8_t *bytes, size_t length,
              uint8_t buffer[SEAL_MAX_MESSAGE], struct seal_message *out) {
    int status = seal_decrypt(key, bytes, length, buffer, out);
    return status != 0 ? status : seal_verify(key, out);
}
