#include "core/tls.h"
#include "core/err.h"
#include "core/key.h"
#include "core/suite.h"

#include <limits.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define CERTIFICATE_LIMIT 4096 /* bytes of the peer's chain; ours has about 350 */
#define X509_VERSION_3 2       /* RFC 5280, 4.1.2.1 */

static const uint8_t alpn[] = {6, 'p', '2', 'p', 'd', '/', '1'}; /* RFC 7301, 3.1 */

struct tls_identity {
    atomic_uint references;
    SSL_CTX *contexts[2]; /* by role */
    BIO_METHOD *transport;
    uint8_t key[TLS_KEY_SIZE];
};

/* OpenSSL's transport: reads what was fed, writes to the outbox. */

static int transport_read(BIO *bio, char *out, size_t size, size_t *got) {
    struct tls *tls = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    size_t n = size < tls->in_length ? size : tls->in_length;
    if (!tls->finished && n > tls->allowance)
        n = tls->allowance;
    *got = n;
    if (n == 0) {
        if (tls->in_length == 0 && !tls->ended)
            BIO_set_retry_read(bio);
        return 0;
    }
    memcpy(out, tls->in, n);
    tls->in += n;
    tls->in_length -= n;
    if (!tls->finished)
        tls->allowance -= n;
    return 1;
}

static int transport_write(BIO *bio, const char *bytes, size_t length, size_t *written) {
    struct tls *tls = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    *written = length;
    return outbox_append(tls->out, bytes, length) == 0;
}

static long transport_control(BIO *bio, int command, long number, void *pointer) {
    struct tls *tls = BIO_get_data(bio);
    (void)number;
    (void)pointer;
    switch (command) {
    case BIO_CTRL_FLUSH:
        return 1;
    case BIO_CTRL_EOF:
        return tls->ended && tls->in_length == 0;
    default:
        return 0;
    }
}

static BIO_METHOD *transport_new(void) {
    BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "p2pd pipe");
    if (method && BIO_meth_set_read_ex(method, transport_read) &&
        BIO_meth_set_write_ex(method, transport_write) &&
        BIO_meth_set_ctrl(method, transport_control))
        return method;
    BIO_meth_free(method);
    return NULL;
}

/* Who the peer is, in place of the check of a chain. What the certificate claims is proven by
 * CertificateVerify, which OpenSSL demands next. */
static int peer_check(X509_STORE_CTX *store, void *unused) {
    (void)unused;
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct tls *tls = SSL_get_app_data(ssl);
    X509 *certificate = X509_STORE_CTX_get0_cert(store);
    if (!certificate || public_from_pkey(X509_get0_pubkey(certificate), tls->peer) != 0) {
        X509_STORE_CTX_set_error(store,
                                 X509_V_ERR_INVALID_PURPOSE); /* alert: unsupported_certificate */
        return 0;
    }
    tls->shown = true;
    tls->mismatch = tls->expects && CRYPTO_memcmp(tls->peer, tls->expected, TLS_KEY_SIZE) != 0;
    X509_STORE_CTX_set_error(store, tls->mismatch
                                        ? X509_V_ERR_CERT_REJECTED /* alert: bad_certificate */
                                        : X509_V_OK);
    return !tls->mismatch;
}

static int alpn_choose(SSL *ssl, const unsigned char **out, unsigned char *out_length,
                       const unsigned char *offered, unsigned offered_length, void *unused) {
    (void)ssl;
    (void)unused;
    for (unsigned i = 0; i < offered_length; i += 1u + offered[i])
        if (offered[i] == alpn[0] && offered_length - i >= sizeof alpn &&
            memcmp(offered + i, alpn, sizeof alpn) == 0) {
            *out = alpn + 1;
            *out_length = alpn[0];
            return SSL_TLSEXT_ERR_OK;
        }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* Signed by itself, valid always: only the key in it means anything. */
static X509 *certificate_new(EVP_PKEY *key) {
    X509 *made = X509_new();
    if (!made)
        return NULL;
    X509_NAME *name = X509_get_subject_name(made);
    if (X509_set_version(made, X509_VERSION_3) &&
        ASN1_INTEGER_set(X509_get_serialNumber(made), 1) &&
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const uint8_t *)"p2pd", -1, -1, 0) &&
        X509_set_issuer_name(made, name) &&
        ASN1_TIME_set_string_X509(X509_getm_notBefore(made), "20000101000000Z") &&
        ASN1_TIME_set_string_X509(X509_getm_notAfter(made), "99991231235959Z") &&
        X509_set_pubkey(made, key) && X509_sign(made, key, EVP_sha256()))
        return made;
    X509_free(made);
    return NULL;
}

static SSL_CTX *context_new(const SSL_METHOD *method, EVP_PKEY *key, X509 *certificate) {
    SSL_CTX *context = SSL_CTX_new_ex(suite_context(), NULL, method);
    if (!context)
        return NULL;
    SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_max_cert_list(context, CERTIFICATE_LIMIT);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_cert_verify_callback(context, peer_check, NULL);
    SSL_CTX_set_alpn_select_cb(context, alpn_choose, NULL);
    if (SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) &&
        SSL_CTX_set_num_tickets(context, 0) &&
        SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256") &&
        SSL_CTX_set1_groups_list(context, "X25519:P-256") &&
        SSL_CTX_set1_sigalgs_list(context, "ECDSA+SHA256") &&
        SSL_CTX_set_alpn_protos(context, alpn, sizeof alpn) == 0 &&
        SSL_CTX_use_certificate(context, certificate) && SSL_CTX_use_PrivateKey(context, key))
        return context;
    SSL_CTX_free(context);
    return NULL;
}

int tls_identity_new(EVP_PKEY *key, struct tls_identity **out) {
    struct tls_identity *identity = calloc(1, sizeof *identity);
    if (!identity)
        return UV_ENOMEM;
    atomic_init(&identity->references, 1);
    if (public_from_pkey(key, identity->key) != 0) {
        tls_identity_drop(identity);
        return UV_EINVAL;
    }
    X509 *certificate = certificate_new(key);
    if (certificate) {
        identity->contexts[TLS_CLIENT] = context_new(TLS_client_method(), key, certificate);
        identity->contexts[TLS_SERVER] = context_new(TLS_server_method(), key, certificate);
        X509_free(certificate);
    }
    identity->transport = transport_new();
    ERR_clear_error();
    if (!identity->contexts[TLS_CLIENT] || !identity->contexts[TLS_SERVER] ||
        !identity->transport) {
        tls_identity_drop(identity);
        return UV_ENOMEM;
    }
    *out = identity;
    return 0;
}

struct tls_identity *tls_identity_keep(struct tls_identity *identity) {
    atomic_fetch_add(&identity->references, 1);
    return identity;
}

void tls_identity_drop(struct tls_identity *identity) {
    if (!identity || atomic_fetch_sub(&identity->references, 1) != 1)
        return;
    SSL_CTX_free(identity->contexts[TLS_CLIENT]);
    SSL_CTX_free(identity->contexts[TLS_SERVER]);
    BIO_meth_free(identity->transport);
    free(identity);
}

const uint8_t *tls_identity_key(const struct tls_identity *identity) {
    return identity->key;
}

int tls_begin(struct tls *tls, struct tls_identity *identity, enum tls_role role,
              const uint8_t *expected, struct outbox *out) {
    SSL *ssl = SSL_new(identity->contexts[role]);
    BIO *bio = BIO_new(identity->transport);
    if (!ssl || !bio) {
        SSL_free(ssl);
        BIO_free(bio);
        ERR_clear_error();
        return UV_ENOMEM;
    }
    BIO_set_data(bio, tls);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio);
    SSL_set_app_data(ssl, tls);
    if (role == TLS_SERVER)
        SSL_set_accept_state(ssl);
    else
        SSL_set_connect_state(ssl);
    if (expected) {
        tls->expects = true;
        memcpy(tls->expected, expected, TLS_KEY_SIZE);
    }
    tls->identity = tls_identity_keep(identity);
    tls->allowance = TLS_HANDSHAKE_LIMIT;
    tls->out = out;
    tls->ssl = ssl;
    return 0;
}

void tls_feed(struct tls *tls, const uint8_t *bytes, size_t length) {
    tls->in = bytes;
    tls->in_length = length;
}

/* A refused certificate is about keys, whichever side refused; all else is the handshake's failure.
 */
static int failure(struct tls *tls) {
    unsigned long error = ERR_peek_last_error();
    tls->reason = ERR_reason_error_string(error);
    ERR_clear_error();
    if (tls->mismatch)
        return ERR_EPEER;
    if (ERR_GET_LIB(error) == ERR_LIB_SSL &&
        ERR_GET_REASON(error) == SSL_R_SSLV3_ALERT_BAD_CERTIFICATE)
        return ERR_EPEER;
    return ERR_ETLS;
}

/* What a call of OpenSSL that did not succeed means. */
static int outcome(struct tls *tls, int result) {
    switch (SSL_get_error(tls->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        return UV_EAGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return UV_EOF;
    default:
        break;
    }
    unsigned long error = ERR_peek_last_error();
    bool cut = error == 0 || ERR_GET_REASON(error) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
    if (cut && tls->ended && tls->in_length == 0) {
        ERR_clear_error();
        return UV_ECONNRESET;
    }
    return failure(tls);
}

static void forget_errors(void) {
    if (ERR_peek_error() != 0)
        ERR_clear_error();
}

static bool alpn_agreed(const SSL *ssl) {
    const unsigned char *chosen;
    unsigned length;
    SSL_get0_alpn_selected(ssl, &chosen, &length);
    return length == alpn[0] && memcmp(chosen, alpn + 1, length) == 0;
}

/* Empties a key in place: OpenSSL keeps the object for as long as the connection. */
static void key_empty(EVP_PKEY *key, int type) {
    if (key)
        EVP_PKEY_set_type(key, type);
}

/* What the handshake needed and nothing will need again: the ephemeral secret, which is better
 * gone, and the peer's key as OpenSSL parsed it, with a copy of the whole curve. That is 4 KiB of
 * an idle pipe. */
static void handshake_forget(struct tls *tls) {
    EVP_PKEY *ephemeral = NULL;
    X509 *certificate = SSL_get0_peer_certificate(tls->ssl);
    if (certificate)
        key_empty(X509_get0_pubkey(certificate), EVP_PKEY_EC);
    if (SSL_get_tmp_key(tls->ssl, &ephemeral)) {
        key_empty(ephemeral, EVP_PKEY_get_base_id(ephemeral));
        EVP_PKEY_free(ephemeral);
    }
}

int tls_handshake(struct tls *tls) {
    forget_errors();
    int result = SSL_do_handshake(tls->ssl);
    if (result != 1)
        return outcome(tls, result);
    if (!alpn_agreed(tls->ssl)) {
        tls->reason = "no application protocol";
        return ERR_ETLS;
    }
    tls->finished = true;
    handshake_forget(tls);

    return 0;
}

/* OpenSSL would find out too, at the price of a tenth of a small message's round trip. */
static bool nothing_to_read(const struct tls *tls) {
    return tls->in_length == 0 && !tls->ended && !tls_pending(tls);
}

ssize_t tls_read(struct tls *tls, void *buffer, size_t size) {
    size_t total = 0;
    if (tls->over != 0)
        return tls->over;
    if (nothing_to_read(tls))
        return UV_EAGAIN;
    warm_use(&tls->warmth, tls->ssl);
    forget_errors();
    while (total < size && !(total > 0 && nothing_to_read(tls))) {
        size_t got = 0;
        int result = SSL_read_ex(tls->ssl, (uint8_t *)buffer + total, size - total, &got);
        if (result != 1) {
            int status = outcome(tls, result);
            if (status != UV_EAGAIN)
                tls->over = status;
            return total > 0 ? (ssize_t)total : status;
        }
        total += got;
    }
    return (ssize_t)total;
}

bool tls_pending(const struct tls *tls) {
    return SSL_pending(tls->ssl) > 0;
}

int tls_write(struct tls *tls, const void *bytes, size_t length) {
    size_t written = 0;
    if (length == 0)
        return 0;
    warm_use(&tls->warmth, tls->ssl);
    int result = SSL_write_ex(tls->ssl, bytes, length, &written);
    if (result == 1)
        return 0;
    int status = outcome(tls, result);
    return status == UV_EAGAIN || status == UV_EOF ? ERR_ETLS : status;
}

void tls_goodbye(struct tls *tls) {
    forget_errors();
    if (tls->finished && !(SSL_get_shutdown(tls->ssl) & SSL_SENT_SHUTDOWN))
        SSL_shutdown(tls->ssl);
    ERR_clear_error();
}

void tls_end(struct tls *tls) {
    if (!tls->ssl)
        return;
    warm_forget(&tls->warmth);
    SSL_free(tls->ssl);
    tls->ssl = NULL;
    tls_identity_drop(tls->identity);
}
