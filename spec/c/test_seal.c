#include "core/bytes.h"
#include "core/err.h"
#include "core/seal.h"
#include "spec/c/check.h"

#include <stdlib.h>

static const uint8_t id[SEAL_ID_SIZE] = "0123456789abcde";
static struct key *alice, *bob, *eve;

static int open_exact(const struct key *key, const uint8_t *bytes, size_t length, uint8_t *buffer,
                      struct seal_message *out) {
    uint8_t *copy = malloc(length + !length); /* of exactly its size, for the sanitizer */
    memcpy(copy, bytes, length);
    int status = seal_open(key, copy, length, buffer, out);
    free(copy);
    return status;
}

static void a_message_reaches_its_recipient(void) {
    static const size_t lengths[] = {0, 1, 15, 16, 17, 500, SEAL_MAX_BODY};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        uint8_t body[SEAL_MAX_BODY], sealed[SEAL_MAX_MESSAGE], buffer[SEAL_MAX_MESSAGE];
        size_t length = lengths[i];
        struct seal_message message;
        crypto_random(body, sizeof body);
        CHECK_EQ(seal(alice, key_public(bob), 1234567890123, id, body, length, sealed), 0);
        CHECK_EQ(open_exact(bob, sealed, SEAL_OVERHEAD + length, buffer, &message), 0);
        CHECK(memcmp(message.sender, key_public(alice), KEY_PUBLIC_SIZE) == 0);
        CHECK(memcmp(message.id, id, sizeof id) == 0);
        CHECK_EQ(message.time_ms, 1234567890123);
        CHECK_EQ(message.body_length, length);
        CHECK(memcmp(message.body, body, length) == 0);
    }
}

static void the_layout_is_as_it_is_drawn(void) {
    CHECK_EQ(SEAL_OVERHEAD, 171);
    uint8_t sealed[SEAL_OVERHEAD + 5], again[sizeof sealed];
    CHECK_EQ(seal_with(eve, alice, key_public(bob), 1, id, "hello", 5, sealed), 0);
    CHECK_EQ(sealed[0], 1);
    CHECK(memcmp(sealed + 1, key_public(eve), KEY_PUBLIC_SIZE) == 0);
    CHECK_EQ(seal_with(eve, alice, key_public(bob), 1, id, "hello", 5, again), 0);
    /* Only the signature, which is drawn anew, differs. */
    CHECK(memcmp(sealed, again, 34 + 57) == 0);
    CHECK(memcmp(sealed + 34 + 57, again + 34 + 57, 64) != 0);
    CHECK(memcmp(sealed + 34 + 121, again + 34 + 121, 5) == 0);
}

static void no_two_messages_look_alike(void) {
    uint8_t first[SEAL_OVERHEAD], second[SEAL_OVERHEAD];
    CHECK_EQ(seal(alice, key_public(bob), 1, id, "", 0, first), 0);
    CHECK_EQ(seal(alice, key_public(bob), 1, id, "", 0, second), 0);
    CHECK(memcmp(first + 2, second + 2, 32) != 0);
    CHECK(memcmp(first + 34, second + 34, 16) != 0);
}

static void sizes_are_bounded(void) {
    static uint8_t body[SEAL_MAX_MESSAGE + 1], sealed[SEAL_MAX_MESSAGE + 1];
    uint8_t buffer[SEAL_MAX_MESSAGE];
    struct seal_message message;
    CHECK_EQ(seal(alice, key_public(bob), 1, id, body, SEAL_MAX_BODY + 1, sealed), UV_EMSGSIZE);
    CHECK_EQ(open_exact(bob, sealed, SEAL_MAX_MESSAGE + 1, buffer, &message), UV_EMSGSIZE);
    CHECK_EQ(seal(alice, key_public(bob), 1, id, "hello", 5, sealed), 0);
    for (size_t length = 0; length < SEAL_OVERHEAD; length++)
        CHECK_EQ(open_exact(bob, sealed, length, buffer, &message), ERR_EFORMAT);
    for (size_t length = SEAL_OVERHEAD; length < SEAL_OVERHEAD + 5; length++)
        CHECK_EQ(open_exact(bob, sealed, length, buffer, &message), ERR_EFOREIGN);
}

static void other_keys_open_nothing(void) {
    uint8_t sealed[SEAL_OVERHEAD + 5], buffer[SEAL_MAX_MESSAGE];
    struct seal_message message;
    CHECK_EQ(seal(alice, key_public(bob), 1, id, "hello", 5, sealed), 0);
    CHECK_EQ(open_exact(eve, sealed, sizeof sealed, buffer, &message), ERR_EFOREIGN);
    CHECK_EQ(open_exact(alice, sealed, sizeof sealed, buffer, &message), ERR_EFOREIGN);
}

static void each_changed_bit_is_noticed(void) {
    uint8_t sealed[SEAL_OVERHEAD + 5], buffer[SEAL_MAX_MESSAGE];
    struct seal_message message;
    CHECK_EQ(seal(alice, key_public(bob), 1, id, "hello", 5, sealed), 0);
    for (size_t bit = 0; bit < 8 * sizeof sealed; bit++) {
        sealed[bit / 8] ^= (uint8_t)(1 << bit % 8);
        int status = open_exact(bob, sealed, sizeof sealed, buffer, &message);
        if (bit < 8)
            CHECK_EQ(status, ERR_EFORMAT);
        else if (bit < 8 * 34) /* the ephemeral key: mostly no point any more */
            CHECK(status == ERR_EFORMAT || status == ERR_EFOREIGN);
        else
            CHECK_EQ(status, ERR_EFOREIGN);
        sealed[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    CHECK_EQ(open_exact(bob, sealed, sizeof sealed, buffer, &message), 0);
}

static void points_that_are_none_are_refused(void) {
    static const uint8_t firsts[] = {0, 1, 4, 5, 6, 7, 255};
    uint8_t sealed[SEAL_OVERHEAD], buffer[SEAL_MAX_MESSAGE], recipient[KEY_PUBLIC_SIZE];
    struct seal_message message;
    CHECK_EQ(seal(alice, key_public(bob), 1, id, "", 0, sealed), 0);
    for (size_t i = 0; i < sizeof firsts; i++) {
        sealed[1] = firsts[i];
        CHECK_EQ(open_exact(bob, sealed, sizeof sealed, buffer, &message), ERR_EFORMAT);
    }
    sealed[1] = 2;
    memset(sealed + 2, 0xff, 32);
    CHECK_EQ(open_exact(bob, sealed, sizeof sealed, buffer, &message), ERR_EFORMAT);
    memset(recipient, 0, sizeof recipient);
    CHECK_EQ(seal(alice, recipient, 1, id, "", 0, sealed), UV_EINVAL);
}

/* Seals as seal_with does, but with a plaintext that the test has a hand in. */
static void forge(const struct key *signer, const uint8_t *claimed, const uint8_t *signed_for,
                  uint8_t change_at, uint8_t out[SEAL_OVERHEAD + 5]) {
    static const char seal_label[] = "p2pd-lua seal 1", sign_label[] = "p2pd-lua sign 1";
    struct key *ephemeral;
    uint8_t shared[32], salt[66], derived[44], digest[SHA256_SIZE], *plain = out + 34;
    CHECK_EQ(key_generate(&ephemeral), 0);
    CHECK_EQ(key_agree(ephemeral, key_public(bob), shared), 0);
    memcpy(salt, key_public(ephemeral), 33);
    memcpy(salt + 33, key_public(bob), 33);
    hkdf_sha256(shared, 32, salt, 66, seal_label, 15, derived, 44);
    out[0] = 1;
    memcpy(out + 1, key_public(ephemeral), 33);
    memcpy(plain, claimed, 33);
    put_u64(plain + 33, 77);
    memcpy(plain + 41, id, 16);
    memcpy(plain + 121, "hello", 5);
    const struct piece pieces[] = {{sign_label, 15},
                                   {key_public(ephemeral), 33},
                                   {signed_for, 33},
                                   {plain, 57},
                                   {plain + 121, 5}};
    sha256(pieces, 5, digest);
    CHECK_EQ(key_sign(signer, digest, plain + 57), 0);
    if (change_at)
        plain[change_at] ^= 1;
    aead_seal(derived, derived + 32, out, 34, plain, 126, plain);
    key_drop(ephemeral);
}

static void signatures_bind_all_that_they_should(void) {
    uint8_t sealed[SEAL_OVERHEAD + 5], buffer[SEAL_MAX_MESSAGE], no_point[KEY_PUBLIC_SIZE] = {0};
    struct seal_message message;
    forge(alice, key_public(alice), key_public(bob), 0, sealed);
    CHECK_EQ(open_exact(bob, sealed, sizeof sealed, buffer, &message), 0);
    CHECK_EQ(message.time_ms, 77);
    forge(eve, key_public(alice), key_public(bob), 0, sealed); /* eve says she is alice */
    CHECK_EQ(open_exact(bob, sealed, sizeof sealed, buffer, &message), ERR_EFORGED);
    forge(alice, key_public(alice), key_public(eve), 0,
          sealed); /* alice wrote to eve, who passes it on */
    CHECK_EQ(open_exact(bob, sealed, sizeof sealed, buffer, &message), ERR_EFORGED);
    forge(alice, no_point, key_public(bob), 0, sealed);
    CHECK_EQ(open_exact(bob, sealed, sizeof sealed, buffer, &message), ERR_EFORGED);
    static const uint8_t places[] = {1, 33, 40, 41, 56, 57, 120, 121, 125};
    for (size_t i = 0; i < sizeof places; i++) {
        forge(alice, key_public(alice), key_public(bob), places[i], sealed);
        CHECK_EQ(open_exact(bob, sealed, sizeof sealed, buffer, &message), ERR_EFORGED);
    }
}

static void both_steps_can_be_taken_apart(void) {
    uint8_t sealed[SEAL_OVERHEAD + 5], buffer[SEAL_MAX_MESSAGE];
    struct seal_message message;
    forge(eve, key_public(alice), key_public(bob), 0, sealed);
    CHECK_EQ(seal_decrypt(bob, sealed, sizeof sealed, buffer, &message), 0);
    CHECK(memcmp(message.id, id, sizeof id) == 0);
    CHECK_EQ(seal_verify(bob, &message), ERR_EFORGED);
}

int main(void) {
    if (key_generate(&alice) != 0 || key_generate(&bob) != 0 || key_generate(&eve) != 0)
        return 1;
    RUN(a_message_reaches_its_recipient);
    RUN(the_layout_is_as_it_is_drawn);
    RUN(no_two_messages_look_alike);
    RUN(sizes_are_bounded);
    RUN(other_keys_open_nothing);
    RUN(each_changed_bit_is_noticed);
    RUN(points_that_are_none_are_refused);
    RUN(signatures_bind_all_that_they_should);
    RUN(both_steps_can_be_taken_apart);
    key_drop(alice);
    key_drop(bob);
    key_drop(eve);
    return check_report();
}
