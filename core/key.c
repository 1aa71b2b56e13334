#include "core/key.h"

#include "core/bytes.h"

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/obj_mac.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

enum {
    POINT_SIZE = 65,
    DER_SIZE = 80
}; /* an uncompressed point; the longest signature is 72 bytes */

struct key {
    atomic_uint references;
    EVP_PKEY *pkey;
    uint8_t public_key[KEY_PUBLIC_SIZE];
    char id[KEY_ID_SIZE];
};

static struct {
    uv_once_t once;
    EC_GROUP *group;
    EVP_PKEY *parameters; /* of the curve, to be copied: much faster than to build them by name */
} p256 = {.once = UV_ONCE_INIT};

static void make_parameters(void) {
    p256.group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
    if (!p256.group || !context || EVP_PKEY_paramgen_init(context) <= 0 ||
        EVP_PKEY_CTX_set_group_name(context, SN_X9_62_prime256v1) <= 0 ||
        EVP_PKEY_paramgen(context, &p256.parameters) <= 0)
        abort();
    EVP_PKEY_CTX_free(context);
}

static bool compressed(const uint8_t *point, size_t length) {
    return length == KEY_PUBLIC_SIZE && (point[0] == 2 || point[0] == 3);
}

int public_from_pkey(const EVP_PKEY *pkey, uint8_t out[KEY_PUBLIC_SIZE]) {
    char group[32];
    uint8_t point[POINT_SIZE];
    size_t length;
    if (!EVP_PKEY_is_a(pkey, "EC") || !EVP_PKEY_get_group_name(pkey, group, sizeof group, NULL) ||
        strcmp(group, SN_X9_62_prime256v1) != 0 ||
        !EVP_PKEY_get_octet_string_param(pkey, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof point,
                                         &length)) {
        ERR_clear_error();
        return UV_EINVAL;
    }
    if (!compressed(point, length)) {
        if (length != POINT_SIZE)
            return UV_EINVAL;
        point[0] = (uint8_t)(2 | (point[POINT_SIZE - 1] & 1)); /* the parity of y (SEC 1, 2.3.3) */
    }
    memcpy(out, point, KEY_PUBLIC_SIZE);
    return 0;
}

bool public_check(const uint8_t public_key[KEY_PUBLIC_SIZE]) {
    if (!compressed(public_key, KEY_PUBLIC_SIZE))
        return false;
    uv_once(&p256.once, make_parameters);
    EC_POINT *point = EC_POINT_new(p256.group);
    bool on_curve =
        point && EC_POINT_oct2point(p256.group, point, public_key, KEY_PUBLIC_SIZE, NULL) == 1;
    EC_POINT_free(point);
    ERR_clear_error();
    return on_curve;
}

/* NULL when the bytes are no point of the curve. The curve's cofactor is 1: each of its points will
 * do. */
static EVP_PKEY *pkey_from_public(const uint8_t public_key[KEY_PUBLIC_SIZE]) {
    if (!compressed(public_key, KEY_PUBLIC_SIZE))
        return NULL;
    uv_once(&p256.once, make_parameters);
    EVP_PKEY *pkey = EVP_PKEY_new();
    if (pkey && EVP_PKEY_copy_parameters(pkey, p256.parameters) == 1 &&
        EVP_PKEY_set1_encoded_public_key(pkey, public_key, KEY_PUBLIC_SIZE) == 1)
        return pkey;
    EVP_PKEY_free(pkey);
    ERR_clear_error();
    return NULL;
}

/* Takes over the pkey, also when it fails. */
static int wrap(EVP_PKEY *pkey, struct key **out) {
    struct key *key = calloc(1, sizeof *key);
    int status = key ? public_from_pkey(pkey, key->public_key) : UV_ENOMEM;
    if (status != 0) {
        EVP_PKEY_free(pkey);
        free(key);
        return status;
    }
    atomic_init(&key->references, 1);
    key->pkey = pkey;
    node_id_format(key->public_key, key->id);
    *out = key;
    return 0;
}

int key_generate(struct key **out) {
    EVP_PKEY *pkey = EVP_PKEY_Q_keygen(NULL, NULL, "EC", SN_X9_62_prime256v1);
    return pkey ? wrap(pkey, out) : UV_ENOMEM;
}

/* The point of a secret: secret * G. */
static int multiply(const BIGNUM *secret, uint8_t out[POINT_SIZE]) {
    EC_POINT *point = EC_POINT_new(p256.group);
    int ok = point && EC_POINT_mul(p256.group, point, secret, NULL, NULL, NULL) &&
             EC_POINT_point2oct(p256.group, point, POINT_CONVERSION_UNCOMPRESSED, out, POINT_SIZE,
                                NULL) == POINT_SIZE;
    EC_POINT_free(point);
    return ok;
}

int key_from_secret(const uint8_t secret[KEY_SECRET_SIZE], struct key **out) {
    uv_once(&p256.once, make_parameters);
    BIGNUM *number = BN_secure_new();
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
    OSSL_PARAM *params = NULL;
    EVP_PKEY *pkey = NULL;
    uint8_t point[POINT_SIZE];
    int status = UV_ENOMEM;
    if (!number || !build || !context || !BN_bin2bn(secret, KEY_SECRET_SIZE, number))
        goto done;
    BN_set_flags(number, BN_FLG_CONSTTIME);
    status = UV_EINVAL;
    if (BN_is_zero(number) || BN_cmp(number, EC_GROUP_get0_order(p256.group)) >= 0)
        goto done;
    status = UV_ENOMEM;
    if (multiply(number, point) &&
        OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, SN_X9_62_prime256v1,
                                        0) &&
        OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof point) &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_PRIV_KEY, number) &&
        (params = OSSL_PARAM_BLD_to_param(build)) && EVP_PKEY_fromdata_init(context) > 0 &&
        EVP_PKEY_fromdata(context, &pkey, EVP_PKEY_KEYPAIR, params) > 0)
        status = wrap(pkey, out);
done:
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(build);
    EVP_PKEY_CTX_free(context);
    BN_clear_free(number);
    return status;
}

/* An encrypted file must not make OpenSSL ask for a password at the terminal. */
static int no_password(char *out, int size, int writing, void *arg) {
    (void)out, (void)size, (void)writing, (void)arg;
    return -1;
}

int key_from_pem(const char *pem, size_t length, struct key **out) {
    BIO *bio = BIO_new_mem_buf(pem, (int)length);
    if (!bio)
        return UV_ENOMEM;
    EVP_PKEY *pkey = PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL);
    BIO_free(bio);
    EVP_PKEY_CTX *context = pkey ? EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL) : NULL;
    uint8_t public_key[KEY_PUBLIC_SIZE];
    /* The file holds both halves; a node whose halves differ could prove nothing. */
    bool good =
        context && public_from_pkey(pkey, public_key) == 0 && EVP_PKEY_pairwise_check(context) == 1;
    EVP_PKEY_CTX_free(context);
    ERR_clear_error();
    if (good)
        return wrap(pkey, out);
    EVP_PKEY_free(pkey);
    return UV_EINVAL;
}

int key_to_pem(const struct key *key, char out[KEY_PEM_SIZE]) {
    BIO *bio = BIO_new(BIO_s_secmem());
    int length = UV_ENOMEM;
    char *text;
    if (bio && PEM_write_bio_PKCS8PrivateKey(bio, key->pkey, NULL, NULL, 0, NULL, NULL) == 1) {
        long size = BIO_get_mem_data(bio, &text);
        if (size > 0 && size < KEY_PEM_SIZE) {
            memcpy(out, text, (size_t)size);
            out[size] = '\0';
            length = (int)size;
        }
    }
    BIO_free(bio);
    return length;
}

struct key *key_keep(struct key *key) {
    atomic_fetch_add(&key->references, 1);
    return key;
}

void key_drop(struct key *key) {
    if (!key || atomic_fetch_sub(&key->references, 1) != 1)
        return;
    EVP_PKEY_free(key->pkey); /* wipes the secret */
    free(key);
}

const uint8_t *key_public(const struct key *key) {
    return key->public_key;
}

const char *key_id(const struct key *key) {
    return key->id;
}

EVP_PKEY *key_pkey(const struct key *key) {
    return key->pkey;
}

int key_agree(const struct key *key, const uint8_t other[KEY_PUBLIC_SIZE], uint8_t out[32]) {
    EVP_PKEY *peer = pkey_from_public(other);
    if (!peer)
        return UV_EINVAL;
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(NULL, key->pkey, NULL);
    size_t length = 32;
    /* No second look at the peer: it is on the curve already, and no point of it is weak. */
    bool agreed = context && EVP_PKEY_derive_init(context) > 0 &&
                  EVP_PKEY_derive_set_peer_ex(context, peer, 0) > 0 &&
                  EVP_PKEY_derive(context, out, &length) > 0 && length == 32;
    EVP_PKEY_CTX_free(context);
    EVP_PKEY_free(peer);
    ERR_clear_error();
    return agreed ? 0 : UV_ENOMEM;
}

int key_sign(const struct key *key, const uint8_t digest[SHA256_SIZE],
             uint8_t out[KEY_SIGNATURE_SIZE]) {
    uint8_t der[DER_SIZE];
    size_t length = sizeof der;
    const uint8_t *at = der;
    ECDSA_SIG *signature = NULL;
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(NULL, key->pkey, NULL);
    int status = UV_ENOMEM;
    if (context && EVP_PKEY_sign_init(context) > 0 &&
        EVP_PKEY_sign(context, der, &length, digest, SHA256_SIZE) > 0 &&
        (signature = d2i_ECDSA_SIG(NULL, &at, (long)length)) &&
        BN_bn2binpad(ECDSA_SIG_get0_r(signature), out, 32) == 32 &&
        BN_bn2binpad(ECDSA_SIG_get0_s(signature), out + 32, 32) == 32)
        status = 0;
    ECDSA_SIG_free(signature);
    EVP_PKEY_CTX_free(context);
    return status;
}

/* From r and s to the form that OpenSSL takes; the length, or 0. */
static int to_der(const uint8_t raw[KEY_SIGNATURE_SIZE], uint8_t der[DER_SIZE]) {
    ECDSA_SIG *signature = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(raw, 32, NULL), *s = BN_bin2bn(raw + 32, 32, NULL);
    int length = 0;
    if (signature && r && s && ECDSA_SIG_set0(signature, r, s) == 1) {
        uint8_t *at = der;
        r = s = NULL; /* the signature's now */
        length = i2d_ECDSA_SIG(signature, &at);
    }
    BN_free(r);
    BN_free(s);
    ECDSA_SIG_free(signature);
    return length > 0 ? length : 0;
}

bool key_verify(const uint8_t public_key[KEY_PUBLIC_SIZE], const uint8_t digest[SHA256_SIZE],
                const uint8_t signature[KEY_SIGNATURE_SIZE]) {
    uint8_t der[DER_SIZE];
    int length = to_der(signature, der);
    EVP_PKEY *pkey = length ? pkey_from_public(public_key) : NULL;
    EVP_PKEY_CTX *context = pkey ? EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL) : NULL;
    bool held = context && EVP_PKEY_verify_init(context) > 0 &&
                EVP_PKEY_verify(context, der, (size_t)length, digest, SHA256_SIZE) == 1;
    EVP_PKEY_CTX_free(context);
    EVP_PKEY_free(pkey);
    ERR_clear_error();
    return held;
}

void node_id_format(const uint8_t public_key[KEY_PUBLIC_SIZE], char out[KEY_ID_SIZE]) {
    char text[BASE58_SIZE(KEY_PUBLIC_SIZE)];
    size_t length = base58_encode(public_key, KEY_PUBLIC_SIZE, text);
    if (length >= KEY_ID_SIZE) /* only bytes that are no key: the first of one is 2 or 3 */
        length = 0;
    memcpy(out, text, length);
    out[length] = '\0';
}

int node_id_parse(const char *text, size_t length, uint8_t out[KEY_PUBLIC_SIZE]) {
    if (length >= KEY_ID_SIZE || !base58_decode(text, length, out, KEY_PUBLIC_SIZE) ||
        !public_check(out))
        return UV_EINVAL;
    return 0;
}
