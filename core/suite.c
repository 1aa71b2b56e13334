#include "core/suite.h"

#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#include <stdbool.h>
#include <string.h>
#include <uv.h>

#define OPERATIONS (OSSL_OP__HIGHEST + 1)
#define KEPT 24           /* algorithms of one operation */
#define GCM_FUNCTIONS 32  /* of a cipher, with the empty one at their end */
#define TLS_NONCE_SIZE 12 /* of all ciphers of TLS 1.3: RFC 8446, section 5.3; RFC 5116 */

/* By the first of an algorithm's names, up to a colon. */
static const char *const wanted[] = {
    "AES-128-GCM", "AES-256-GCM", "AES-256-CTR", "ChaCha20-Poly1305", "SHA2-256", "SHA2-384",
    "SHA1",        "HMAC",        "HKDF",        "TLS13-KDF",         "X25519",   "EC",
    "ECDH",        "ECDSA",       "CTR-DRBG",    "SEED-SRC",
};

static OSSL_PROVIDER *all;
static OSSL_LIB_CTX *context;
static OSSL_ALGORITHM kept[OPERATIONS][KEPT + 1]; /* each ends with an empty entry */

static bool has_name(const OSSL_ALGORITHM *algorithm, const char *name) {
    size_t length = strcspn(algorithm->algorithm_names, ":");
    return strlen(name) == length && strncmp(algorithm->algorithm_names, name, length) == 0;
}

static bool is_wanted(const OSSL_ALGORITHM *algorithm) {
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (has_name(algorithm, wanted[i]))
            return true;
    return false;
}

static OSSL_FUNC_cipher_get_ctx_params_fn *gcm_params;
static OSSL_DISPATCH gcm[GCM_FUNCTIONS];

/* OpenSSL 3.0 asks a cipher for the length of its nonce at each record, and the default provider
 * compares the question with seven others: a twentieth of what a small record takes. */
static int gcm_answer(void *cipher, OSSL_PARAM params[]) {
    if (strcmp(params[0].key, OSSL_CIPHER_PARAM_IVLEN) == 0 && !params[1].key)
        return OSSL_PARAM_set_size_t(&params[0], TLS_NONCE_SIZE);
    return gcm_params(cipher, params);
}

/* The cipher's functions with gcm_answer among them; as they are where there are too many. */
static const OSSL_DISPATCH *with_answer(const OSSL_DISPATCH *from) {
    for (size_t i = 0; i < GCM_FUNCTIONS; i++) {
        gcm[i] = from[i];
        if (from[i].function_id == 0)
            return gcm_params ? gcm : from;
        if (from[i].function_id == OSSL_FUNC_CIPHER_GET_CTX_PARAMS) {
            gcm_params = OSSL_FUNC_cipher_get_ctx_params(&from[i]);
            gcm[i].function = (void (*)(void))gcm_answer;
        }
    }
    return from;
}

/* What of an operation is wanted, copied once: OpenSSL keeps pointers to it. */
static void keep(int operation, const OSSL_ALGORITHM *from) {
    size_t count = 0;
    for (; from && from->algorithm_names && count < KEPT; from++) {
        if (!is_wanted(from))
            continue;
        OSSL_ALGORITHM *to = &kept[operation][count++];
        *to = *from;
        if (operation == OSSL_OP_CIPHER && has_name(from, "AES-128-GCM"))
            to->implementation = with_answer(from->implementation);
    }
}

static const OSSL_ALGORITHM *query(void *unused, int operation, int *no_cache) {
    (void)unused;
    *no_cache = 0;
    return operation > 0 && operation < OPERATIONS ? kept[operation] : NULL;
}

static int capabilities(void *unused, const char *name, OSSL_CALLBACK *each, void *arg) {
    (void)unused;
    return OSSL_PROVIDER_get_capabilities(all, name, each, arg);
}

static int begin(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in, const OSSL_DISPATCH **out,
                 void **provider_context) {
    static const OSSL_DISPATCH ours[] = {
        {OSSL_FUNC_PROVIDER_QUERY_OPERATION, (void (*)(void))query},
        {OSSL_FUNC_PROVIDER_GET_CAPABILITIES, (void (*)(void))capabilities},
        {0, NULL},
    };
    (void)handle;
    (void)in;
    *out = ours;
    *provider_context =
        OSSL_PROVIDER_get0_provider_ctx(all); /* whose functions are called with it */
    return 1;
}

static void make(void) {
    int no_cache;
    all = OSSL_PROVIDER_load(NULL, "default");
    OSSL_LIB_CTX *made = all ? OSSL_LIB_CTX_new() : NULL;
    if (!made)
        return;
    for (int operation = 1; operation < OPERATIONS; operation++)
        keep(operation, OSSL_PROVIDER_query_operation(all, operation, &no_cache));
    if (OSSL_PROVIDER_add_builtin(made, "suite", begin) && OSSL_PROVIDER_load(made, "suite"))
        context = made;
    else
        OSSL_LIB_CTX_free(made);
    ERR_clear_error();
}

OSSL_LIB_CTX *suite_context(void) {
    static uv_once_t once = UV_ONCE_INIT;
    uv_once(&once, make);
    return context;
}
