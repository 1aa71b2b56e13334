/* Two ways in: the bytes as a sealed message, and the bytes as what was sealed, with a key that is
 * the recipient's own so that the fuzzer gets past the encryption. The first byte chooses. */
#include "core/err.h"
#include "core/inbox.h"
#include "core/seal.h"

#include <stdlib.h>
#include <string.h>

#define MUST(condition) ((condition) ? (void)0 : abort())
#define NOW 1800000000000ull

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static struct key *own, *ephemeral;
static struct inbox *inbox;

static struct key *fixed_key(uint8_t number) {
    struct key *key;
    MUST(key_from_secret((uint8_t[KEY_SECRET_SIZE]){[31] = number}, &key) == 0);
    return key;
}

/* Encrypts a plaintext as core/seal.h draws it. */
static size_t enclose(const uint8_t *plain, size_t length, uint8_t *out) {
    uint8_t shared[32], salt[66], derived[44];
    memcpy(salt, key_public(ephemeral), 33);
    memcpy(salt + 33, key_public(own), 33);
    MUST(key_agree(ephemeral, key_public(own), shared) == 0);
    hkdf_sha256(shared, 32, salt, 66, "p2pd-lua seal 1", 15, derived, 44);
    out[0] = SEAL_VERSION;
    memcpy(out + 1, key_public(ephemeral), 33);
    aead_seal(derived, derived + 32, out, 34, plain, length, out + 34);
    return 34 + length + AEAD_TAG_SIZE;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
    static uint8_t sealed[SEAL_MAX_MESSAGE + 64];
    uint8_t buffer[SEAL_MAX_MESSAGE];
    struct seal_message message;
    if (!own) {
        own = fixed_key(1);
        ephemeral = fixed_key(2);
        MUST(inbox_new(NOW - 1000, &inbox) == 0);
    }
    if (length == 0)
        return 0;
    const uint8_t *input = bytes + 1;
    size_t size = length - 1;
    if (bytes[0] & 1) {
        if (size > SEAL_MAX_MESSAGE)
            return 0;
        size = enclose(input, size, sealed);
        input = sealed;
    }
    int status = seal_open(own, input, size, buffer, &message);
    if (status == 0) {
        MUST(message.body >= buffer &&
             message.body + message.body_length <= buffer + sizeof buffer);
        MUST(message.body_length == size - SEAL_OVERHEAD);
        MUST(public_check(message.sender));
    }
    int judged = inbox_open(inbox, own, input, size, NOW, 0, buffer, &message, NULL);
    MUST(status == 0 || judged == status || judged == ERR_EREPLAYED);
    return 0;
}
