#include "core/bytes.h"
#include "core/key.h"
#include "spec/c/check.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <uv.h>

/* RFC 6979, A.2.5: a secret of P-256, and its point, compressed. */
#define SECRET "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721"
#define PUBLIC "0360fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6"

static void unhex(const char *text, uint8_t *out) {
    CHECK(hex_decode(text, strlen(text), out, strlen(text) / 2));
}

static bool is_hex(const uint8_t *bytes, const char *text) {
    char buffer[256];
    hex_encode(bytes, strlen(text) / 2, buffer);
    if (strcmp(buffer, text) == 0)
        return true;
    printf("  %s\n", buffer);
    return false;
}

static struct key *key_of(const char *secret) {
    uint8_t bytes[KEY_SECRET_SIZE];
    struct key *key = NULL;
    unhex(secret, bytes);
    CHECK_EQ(key_from_secret(bytes, &key), 0);
    return key;
}

static void hashes_match_their_standards(void) {
    uint8_t out[82];
    sha256((struct piece[]){{"a", 1}, {"", 0}, {"bc", 2}}, 3, out); /* FIPS 180-4 */
    CHECK(is_hex(out, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
    sha256(NULL, 0, out);
    CHECK(is_hex(out, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
    /* RFC 4231, 4.3 */
    hmac_sha256("Jefe", 4, (struct piece[]){{"what do ya want ", 16}, {"for nothing?", 12}}, 2,
                out);
    CHECK(is_hex(out, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"));
    uint8_t secret[22], salt[13], info[10]; /* RFC 5869, A.1 */
    memset(secret, 0x0b, sizeof secret);
    unhex("000102030405060708090a0b0c", salt);
    unhex("f0f1f2f3f4f5f6f7f8f9", info);
    hkdf_sha256(secret, sizeof secret, salt, sizeof salt, info, sizeof info, out, 42);
    CHECK(is_hex(out, "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
                      "34007208d5b887185865"));
}

/* McGrew and Viega, test case 16. */
static void encryption_matches_its_standard(void) {
    uint8_t key[32], nonce[12], aad[20], plain[60], sealed[76], back[60];
    unhex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", key);
    unhex("cafebabefacedbaddecaf888", nonce);
    unhex("feedfacedeadbeeffeedfacedeadbeefabaddad2", aad);
    unhex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e24"
          "49a6b525b16aedf5aa0de657ba637b39",
          plain);
    aead_seal(key, nonce, aad, sizeof aad, plain, sizeof plain, sealed);
    CHECK(is_hex(sealed, "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48"
                         "590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853"
                         "bb2d551b"));
    CHECK(aead_open(key, nonce, aad, sizeof aad, sealed, sizeof sealed, back));
    CHECK(memcmp(back, plain, sizeof plain) == 0);
    CHECK(!aead_open(key, nonce, aad, sizeof aad - 1, sealed, sizeof sealed, back));
    CHECK(back[0] == 0 && back[59] == 0);
    CHECK(!aead_open(key, nonce, aad, sizeof aad, sealed, sizeof sealed - 1, back));
    CHECK(!aead_open(key, nonce, aad, sizeof aad, sealed, 15, back));
    aead_seal(key, nonce, aad, sizeof aad, plain, 0, sealed);
    CHECK(aead_open(key, nonce, aad, sizeof aad, sealed, AEAD_TAG_SIZE, back));
}

static void a_secret_gives_its_public_key(void) {
    struct key *key = key_of(SECRET);
    CHECK(is_hex(key_public(key), PUBLIC));
    uint8_t back[KEY_PUBLIC_SIZE];
    CHECK_EQ(public_from_pkey(key_pkey(key), back), 0);
    CHECK(is_hex(back, PUBLIC));
    key_drop(key);
}

static void secrets_out_of_range_are_refused(void) {
    static const char *const bad[] = {
        "0000000000000000000000000000000000000000000000000000000000000000",
        "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", /* the order */
        "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    };
    for (size_t i = 0; i < 3; i++) {
        uint8_t bytes[KEY_SECRET_SIZE];
        struct key *key = NULL;
        unhex(bad[i], bytes);
        CHECK_EQ(key_from_secret(bytes, &key), UV_EINVAL);
        CHECK(!key);
    }
    key_drop(key_of("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632550"));
    key_drop(key_of("0000000000000000000000000000000000000000000000000000000000000001"));
}

static void node_ids_round_trip(void) {
    uint8_t key[KEY_PUBLIC_SIZE], back[KEY_PUBLIC_SIZE];
    char id[KEY_ID_SIZE];
    for (int i = 0; i < 20; i++) {
        struct key *made;
        CHECK_EQ(key_generate(&made), 0);
        size_t length = strlen(key_id(made));
        CHECK(length == 44 || length == 45);
        CHECK_EQ(node_id_parse(key_id(made), length, back), 0);
        CHECK(memcmp(back, key_public(made), KEY_PUBLIC_SIZE) == 0);
        key_drop(made);
    }
    unhex(PUBLIC, key);
    node_id_format(key, id);
    CHECK_EQ(node_id_parse(id, strlen(id), back), 0);
    CHECK_EQ(node_id_parse(id, strlen(id) - 1, back), UV_EINVAL);
    CHECK_EQ(node_id_parse("", 0, back), UV_EINVAL);
    CHECK_EQ(node_id_parse("93e9d6f7e7791ea06544557a2", 25, back), UV_EINVAL);
    memset(key, 0xff, sizeof key); /* too long a number for an id */
    node_id_format(key, id);
    CHECK_TEXT(id, "");
}

static void bytes_that_are_no_point_are_refused(void) {
    uint8_t key[KEY_PUBLIC_SIZE], out[32];
    char id[KEY_ID_SIZE];
    struct key *own = key_of(SECRET);
    unhex(PUBLIC, key);
    CHECK(public_check(key));
    int refused = 0;
    for (int i = 0; i < 64; i++) { /* about half of all x have no y */
        key[32] = (uint8_t)i;
        bool good = public_check(key);
        node_id_format(key, id);
        CHECK_EQ(key_agree(own, key, out), good ? 0 : UV_EINVAL);
        CHECK_EQ(node_id_parse(id, strlen(id), (uint8_t[KEY_PUBLIC_SIZE]){0}),
                 good ? 0 : UV_EINVAL);
        refused += !good;
    }
    CHECK(refused > 16 && refused < 48);
    unhex(PUBLIC, key);
    for (int first = 0; first < 256; first++) {
        key[0] = (uint8_t)first;
        CHECK(public_check(key) == (first == 2 || first == 3));
    }
    memset(key + 1, 0xff, 32); /* x beyond the field */
    key[0] = 2;
    CHECK(!public_check(key));
    memset(key, 0, sizeof key); /* infinity */
    CHECK(!public_check(key));
    key_drop(own);
}

/* NIST CAVP, ECC CDH, P-256, COUNT = 0. */
static void agreement_matches_its_standard(void) {
    struct key *own = key_of("7d7dc5f71eb29ddaf80d6214632eeae03d9058af1fb6d22ed80badb62bc1a534");
    uint8_t other[KEY_PUBLIC_SIZE], out[32];
    unhex("02700c48f77f56584c5cc632ca65640db91b6bacce3a4df6b42ce7cc838833d287", other);
    CHECK_EQ(key_agree(own, other, out), 0);
    CHECK(is_hex(out, "46fc62106420ff012e54a434fbdd2d25ccc5852060561e68040dd7778997bd7b"));
    other[0] = 3; /* the same x */
    CHECK_EQ(key_agree(own, other, out), 0);
    CHECK(is_hex(out, "46fc62106420ff012e54a434fbdd2d25ccc5852060561e68040dd7778997bd7b"));
    key_drop(own);
}

static void signatures_hold_for_what_was_signed(void) {
    struct key *key = key_of(SECRET), *other;
    uint8_t digest[SHA256_SIZE], signature[KEY_SIGNATURE_SIZE];
    CHECK_EQ(key_generate(&other), 0);
    sha256(&(struct piece){"sample", 6}, 1, digest);
    unhex("efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716"
          "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
          signature); /* RFC 6979, A.2.5 */
    CHECK(key_verify(key_public(key), digest, signature));
    for (int i = 0; i < 50; i++) { /* short r and s come up now and then */
        digest[0]++;
        CHECK(!key_verify(key_public(key), digest, signature));
        CHECK_EQ(key_sign(key, digest, signature), 0);
        CHECK(key_verify(key_public(key), digest, signature));
        CHECK(!key_verify(key_public(other), digest, signature));
    }
    for (size_t i = 0; i < sizeof signature; i++) {
        signature[i] ^= 1;
        CHECK(!key_verify(key_public(key), digest, signature));
        signature[i] ^= 1;
    }
    memset(signature, 0, sizeof signature);
    CHECK(!key_verify(key_public(key), digest, signature));
    memset(signature, 0xff, sizeof signature);
    CHECK(!key_verify(key_public(key), digest, signature));
    key_drop(key);
    key_drop(other);
}

static void pem_round_trips(void) {
    struct key *key, *back = NULL;
    char pem[KEY_PEM_SIZE];
    CHECK_EQ(key_generate(&key), 0);
    int length = key_to_pem(key, pem);
    CHECK(length > 0 && (size_t)length == strlen(pem));
    CHECK(strncmp(pem, "-----BEGIN PRIVATE KEY-----", 27) == 0);
    CHECK_EQ(key_from_pem(pem, (size_t)length, &back), 0);
    CHECK_TEXT(key_id(back), key_id(key));
    key_drop(back);
    key_drop(key);
}

/* All of these were made by the openssl program. */
static void pem_of_other_kinds(void) {
    static const struct {
        const char *what, *pem;
        int status;
    } cases[] = {
        {"SEC 1 of P-256",
         "-----BEGIN EC PRIVATE KEY-----\n"
         "MHcCAQEEIFJa2a0eofH2Mlt+WFLodMYalacjHmamTTKpt6DsgASJoAoGCCqGSM49\n"
         "AwEHoUQDQgAETGHgJ3TNTYWU84QVBVhXdhK4Gy/cE58yxqUV2v4CdEqrLfGnQTm0\n"
         "our644UNk4gmMnuXWm5Y1zX8mv5kXO88gQ==\n"
         "-----END EC PRIVATE KEY-----\n",
         0},
        {"nothing", "", UV_EINVAL},
        {"no PEM", "hello", UV_EINVAL},
        {"half a key", "-----BEGIN PRIVATE KEY-----\nMIGH", UV_EINVAL},
        {"PKCS 8 of P-256",
         "-----BEGIN PRIVATE KEY-----\n"
         "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgILucdapO6PpLMyh6\n"
         "1nxGFUr2JpQayKPTJgRhTwr3WcChRANCAAT0+Rk0oWgBNS9P+YKSTjNaPdQuQeu+\n"
         "PRW0EzxKtyYhyGyPPSzSZnmRE5PdGoRqjhZUfgihFx4qylfGyR+RhNo+\n"
         "-----END PRIVATE KEY-----\n",
         0},
        {"SEC 1 after its parameters",
         "-----BEGIN EC PARAMETERS-----\n"
         "BggqhkjOPQMBBw==\n"
         "-----END EC PARAMETERS-----\n"
         "-----BEGIN EC PRIVATE KEY-----\n"
         "MHcCAQEEIFJa2a0eofH2Mlt+WFLodMYalacjHmamTTKpt6DsgASJoAoGCCqGSM49\n"
         "AwEHoUQDQgAETGHgJ3TNTYWU84QVBVhXdhK4Gy/cE58yxqUV2v4CdEqrLfGnQTm0\n"
         "our644UNk4gmMnuXWm5Y1zX8mv5kXO88gQ==\n"
         "-----END EC PRIVATE KEY-----\n",
         0},
        {"a compressed public half",
         "-----BEGIN EC PRIVATE KEY-----\n"
         "MFcCAQEEIFJa2a0eofH2Mlt+WFLodMYalacjHmamTTKpt6DsgASJoAoGCCqGSM49\n"
         "AwEHoSQDIgADTGHgJ3TNTYWU84QVBVhXdhK4Gy/cE58yxqUV2v4CdEo=\n"
         "-----END EC PRIVATE KEY-----\n",
         0},
        {"P-384",
         "-----BEGIN EC PRIVATE KEY-----\n"
         "MIGkAgEBBDDj1ihNwz1JyvXFCjUBc5PNyPubViDGnpmqYCpxCDgQPM2D/d8sbibW\n"
         "p4Z8WuRmQkigBwYFK4EEACKhZANiAAQX4Po3gYTL5qQkQET50ogwHju8BLiCknAB\n"
         "ZtGJXfLxWEW4DdP6vKmSz+z+DwPnjOhcRT6KeHv/MUkJpJC4esKfSVZBs6lMcwt+\n"
         "rweYys+OJVwWLPD4QX+GxvrFJaQw91M=\n"
         "-----END EC PRIVATE KEY-----\n",
         UV_EINVAL},
        {"secp256k1",
         "-----BEGIN EC PRIVATE KEY-----\n"
         "MHQCAQEEIKfPnMRLLq5z3qip2kRvsFMo+pP1UAR9d9thBuafap9YoAcGBSuBBAAK\n"
         "oUQDQgAE7roIDUgfDSq8kRPQJVflZcLtuy8ac+hH0eMDaVRGn2FnO7TbBl2zLBED\n"
         "XEtsljAhzJaLNJyiT96DNYUMaONTcQ==\n"
         "-----END EC PRIVATE KEY-----\n",
         UV_EINVAL},
        {"Ed25519",
         "-----BEGIN PRIVATE KEY-----\n"
         "MC4CAQAwBQYDK2VwBCIEINlZpQqAVNvSf/paJoAdOKVks5Xe7k4BrZyYiCOCnVIN\n"
         "-----END PRIVATE KEY-----\n",
         UV_EINVAL},
        {"an encrypted key (no password is asked for)",
         "-----BEGIN ENCRYPTED PRIVATE KEY-----\n"
         "MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAiVah+FMcRVLgICCAAw\n"
         "DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEApdr4VU9VqUeF6kM434IqcEgZDn\n"
         "FPK2tTfJSjl5U00m2ZOddjMWVE9FXFkCP1S5ur9FBCVVMVii5NVWEJbur0MEgtdo\n"
         "xT5vjuAlPm9yMxvioydoC5OOXIJZTFpzrMVuuQxacybOuVQ2iuOOEqyW00s788Tm\n"
         "eccsyrbuFcJ8Bt/zEp8ErvmJyYftO/yEdwi+yMxzTR0A/rzSTIQdIS5ZcDQQRBY=\n"
         "-----END ENCRYPTED PRIVATE KEY-----\n",
         UV_EINVAL},
        {"the public half alone",
         "-----BEGIN PUBLIC KEY-----\n"
         "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAETGHgJ3TNTYWU84QVBVhXdhK4Gy/c\n"
         "E58yxqUV2v4CdEqrLfGnQTm0our644UNk4gmMnuXWm5Y1zX8mv5kXO88gQ==\n"
         "-----END PUBLIC KEY-----\n",
         UV_EINVAL},
        {"halves of two keys",
         "-----BEGIN EC PRIVATE KEY-----\n"
         "MHcCAQEEIFJa2a0eofH2Mlt+WFLodMYalacjHmamTTKpt6DsgASJoAoGCCqGSM49\n"
         "AwEHoUQDQgAE7hXaFBbt1ADmjWzGwGisCBhSSonzeQoVifhrorDgwygZV2R5MHTf\n"
         "yalkD2VWfEehJPMbPUso/xO4YfqzeBQoAg==\n"
         "-----END EC PRIVATE KEY-----\n",
         UV_EINVAL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct key *key = NULL;
        int status = key_from_pem(cases[i].pem, strlen(cases[i].pem), &key);
        if (status != cases[i].status)
            printf("  %s\n", cases[i].what);
        CHECK_EQ(status, cases[i].status);
        key_drop(key);
    }
}

static void keys_are_counted(void) {
    struct key *key;
    CHECK_EQ(key_generate(&key), 0);
    CHECK(key_keep(key) == key);
    key_drop(key);
    CHECK(strlen(key_id(key)) > 0); /* the sanitizer would tell */
    key_drop(key);
    key_drop(NULL);
}

static void keys_of_other_kinds_have_no_node_id(void) {
    uint8_t out[KEY_PUBLIC_SIZE];
    EVP_PKEY *other = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-384");
    CHECK_EQ(public_from_pkey(other, out), UV_EINVAL);
    EVP_PKEY_free(other);
    other = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    CHECK_EQ(public_from_pkey(other, out), UV_EINVAL);
    EVP_PKEY_free(other);
}

static void random_bytes_differ(void) {
    uint8_t a[32] = {0}, b[32] = {0};
    crypto_random(a, sizeof a);
    crypto_random(b, sizeof b);
    CHECK(!crypto_equal(a, b, sizeof a));
    memcpy(b, a, sizeof a);
    CHECK(crypto_equal(a, b, sizeof a));
    crypto_wipe(a, sizeof a);
    CHECK(a[0] == 0 && memcmp(a, a + 1, sizeof a - 1) == 0);
}

int main(void) {
    RUN(hashes_match_their_standards);
    RUN(encryption_matches_its_standard);
    RUN(a_secret_gives_its_public_key);
    RUN(secrets_out_of_range_are_refused);
    RUN(node_ids_round_trip);
    RUN(bytes_that_are_no_point_are_refused);
    RUN(agreement_matches_its_standard);
    RUN(signatures_hold_for_what_was_signed);
    RUN(pem_round_trips);
    RUN(pem_of_other_kinds);
    RUN(keys_are_counted);
    RUN(keys_of_other_kinds_have_no_node_id);
    RUN(random_bytes_differ);
    return check_report();
}
