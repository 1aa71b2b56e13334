/* plain: TLS 1.3 on libuv as one writes it with nothing in between; what the pipes are measured
 * against.
 *
 * Provides  a connection with memory BIOs, the same key kind, certificates and cipher as the pipes'
 * own Uses      libuv, OpenSSL */
#ifndef SPEC_BENCH_PLAIN_H
#define SPEC_BENCH_PLAIN_H

#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#define PLAIN_BUFFER (256 * 1024)

struct plain {
    uv_tcp_t tcp;
    uv_connect_t connect;
    SSL *ssl;
    BIO *in, *out;
    void (*progress)(struct plain *plain); /* the handshake is done, or bytes have arrived */
    void (*drained)(struct plain *plain);  /* all that was written has left */
    unsigned writes;                       /* uv_write requests under way */
};

static char plain_in[PLAIN_BUFFER];

static inline void plain_die(const char *what, int status) {
    fprintf(stderr, "%s: %s\n", what, status ? uv_strerror(status) : "failed");
    exit(1);
}

static inline int plain_verify(X509_STORE_CTX *store, void *unused) {
    (void)unused;
    X509_STORE_CTX_set_error(store, X509_V_OK);
    return 1;
}

static inline SSL_CTX *plain_context(int server) {
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *made = X509_new();
    X509_NAME *name = X509_get_subject_name(made);
    X509_set_version(made, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(made), 1);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"plain", -1, -1, 0);
    X509_set_issuer_name(made, name);
    X509_gmtime_adj(X509_getm_notBefore(made), 0);
    X509_gmtime_adj(X509_getm_notAfter(made), 86400);
    X509_set_pubkey(made, key);
    X509_sign(made, key, EVP_sha256());
    SSL_CTX *context = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_cert_verify_callback(context, plain_verify, NULL);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(context, 0);
    SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256");
    SSL_CTX_set1_groups_list(context, "X25519:P-256");
    SSL_CTX_use_certificate(context, made);
    SSL_CTX_use_PrivateKey(context, key);
    X509_free(made);
    EVP_PKEY_free(key);
    return context;
}

struct plain_write {
    uv_write_t request;
    struct plain *plain;
    char bytes[];
};

static inline void plain_written(uv_write_t *request, int status) {
    struct plain_write *write = (struct plain_write *)(void *)request;
    struct plain *plain = write->plain;
    free(write);
    plain->writes--;
    if (status == 0 && plain->writes == 0 && plain->drained)
        plain->drained(plain);
}

static inline void plain_flush(struct plain *plain) {
    BUF_MEM *sealed = NULL;
    BIO_get_mem_ptr(plain->out, &sealed);
    char *bytes = sealed->data;
    long length = (long)sealed->length;
    if (length == 0)
        return;
    uv_buf_t buffer = uv_buf_init(bytes, (unsigned)length);
    int n = plain->writes ? UV_EAGAIN : uv_try_write((uv_stream_t *)&plain->tcp, &buffer, 1);
    if (n < 0)
        n = 0;
    if (n < length) {
        size_t rest = (size_t)(length - n);
        struct plain_write *write = malloc(sizeof *write + rest);
        memcpy(write->bytes, bytes + n, rest);
        write->plain = plain;
        buffer = uv_buf_init(write->bytes, (unsigned)rest);
        plain->writes++;
        uv_write(&write->request, (uv_stream_t *)&plain->tcp, &buffer, 1, plain_written);
    }
    BIO_reset(plain->out);
}

static inline void plain_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer) {
    (void)handle;
    (void)suggested;
    *buffer = uv_buf_init(plain_in, PLAIN_BUFFER);
}

static inline void plain_gone(uv_handle_t *handle) {
    struct plain *plain = (struct plain *)(void *)handle;
    SSL_free(plain->ssl);
    free(plain);
}

static inline void plain_close(struct plain *plain) {
    if (!uv_is_closing((uv_handle_t *)&plain->tcp))
        uv_close((uv_handle_t *)&plain->tcp, plain_gone);
}

static inline void plain_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer) {
    struct plain *plain = (struct plain *)(void *)stream;
    if (n < 0) {
        plain_close(plain);
        return;
    }
    BIO_write(plain->in, buffer->base, (int)n);
    if (!SSL_is_init_finished(plain->ssl)) {
        SSL_do_handshake(plain->ssl);
        plain_flush(plain);
        if (!SSL_is_init_finished(plain->ssl))
            return;
    }
    plain->progress(plain);
}

static inline void plain_start(struct plain *plain, SSL_CTX *context, int server) {
    uv_tcp_nodelay(&plain->tcp, 1);
    plain->ssl = SSL_new(context);
    plain->in = BIO_new(BIO_s_mem());
    plain->out = BIO_new(BIO_s_mem());
    SSL_set_bio(plain->ssl, plain->in, plain->out);
    if (server)
        SSL_set_accept_state(plain->ssl);
    else
        SSL_set_connect_state(plain->ssl);
    uv_read_start((uv_stream_t *)&plain->tcp, plain_alloc, plain_read);
    if (!server) {
        SSL_do_handshake(plain->ssl);
        plain_flush(plain);
    }
}

#endif
