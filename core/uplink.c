#include "core/uplink.h"

#include "core/err.h"
#include "core/loop.h"
#include "core/stream.h"

#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK 16384

/* What is read is used up before the callback returns, so one buffer serves all. */
static _Thread_local uint8_t input[4 * CHUNK];

static void fail(struct uplink *uplink, int status) {
    if (uplink->over || uplink->closing)
        return;
    uplink->over = true;
    uv_read_stop((uv_stream_t *)&uplink->tcp);
    uplink->options.on_down(uplink, status);
}

/* ---- TLS over memory ---- */

static int flush(struct uplink *uplink) {
    uint8_t out[CHUNK];
    int length;
    while ((length = BIO_read(SSL_get_wbio(uplink->ssl), out, sizeof(out))) > 0) {
        int status = stream_send((uv_stream_t *)&uplink->tcp, out, (size_t)length);
        if (status)
            return status;
    }
    return 0;
}

static int tls_failed(struct uplink *uplink) {
    long verdict = SSL_get_verify_result(uplink->ssl);
    if (verdict != X509_V_OK) {
        uplink->reason = X509_verify_cert_error_string(verdict);
    } else {
        const char *reason = ERR_reason_error_string(ERR_peek_error());
        uplink->reason = reason ? reason : "the server broke off";
    }
    ERR_clear_error();
    return ERR_ETLS;
}

/* 0 when it is done, UV_EAGAIN for more input, or an error. */
static int shake_hands(struct uplink *uplink) {
    ERR_clear_error();
    int result = SSL_do_handshake(uplink->ssl);
    int cause = SSL_get_error(uplink->ssl, result);
    int status = result == 1 ? 0 : cause == SSL_ERROR_WANT_READ ? UV_EAGAIN : tls_failed(uplink);
    int flushed = flush(uplink); /* also the alert that says what is wrong */
    return flushed && (status == 0 || status == UV_EAGAIN) ? flushed : status;
}

static void became_up(struct uplink *uplink) {
    uplink->up = true;
    uplink->options.on_up(uplink);
}

static void read_plain(struct uplink *uplink) {
    uint8_t plain[CHUNK];
    while (!uplink->over && !uplink->closing) {
        ERR_clear_error();
        int length = SSL_read(uplink->ssl, plain, sizeof(plain));
        if (length > 0) {
            uplink->options.on_data(uplink, plain, (size_t)length);
            continue;
        }
        int cause = SSL_get_error(uplink->ssl, length);
        int status = flush(uplink); /* answers to key updates */
        if (cause == SSL_ERROR_ZERO_RETURN)
            status = UV_EOF;
        else if (cause != SSL_ERROR_WANT_READ)
            status = tls_failed(uplink);
        if (status)
            fail(uplink, status);
        return;
    }
}

static void tls_input(struct uplink *uplink, const uint8_t *bytes, size_t length) {
    if (BIO_write(SSL_get_rbio(uplink->ssl), bytes, (int)length) != (int)length) {
        fail(uplink, UV_ENOMEM);
        return;
    }
    if (!uplink->up) {
        int status = shake_hands(uplink);
        if (status == 0)
            became_up(uplink);
        else if (status != UV_EAGAIN)
            fail(uplink, status);
    }
    if (uplink->up)
        read_plain(uplink);
}

static bool is_literal(const char *host) {
    uint8_t address[16];
    return inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
}

/* The zone of a link-local address means something on this machine alone; certificates and SNI know
 * none. */
static bool expect_host(SSL *ssl, const char *host) {
    char bare[256];
    size_t length = strcspn(host, "%");
    if (length == 0 || length >= sizeof(bare))
        return false;
    memcpy(bare, host, length);
    bare[length] = '\0';
    if (is_literal(bare))
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), bare) == 1;
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(ssl, bare) == 1 && SSL_set_tlsext_host_name(ssl, bare) == 1;
}

/* What is trusted, for all uplinks with the same CA file: with the system's certificates it takes
 * up to 1 MiB and 20 ms. */
struct trust {
    struct trust *next;
    SSL_CTX *context;
    unsigned users;
    char ca_file[];
};

static struct trust *trusts;

static SSL_CTX *make_context(const char *ca_file) {
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (!context)
        return NULL;
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_default_verify_paths(context);
    if (*ca_file == '\0' || SSL_CTX_load_verify_locations(context, ca_file, NULL) == 1)
        return context;
    ERR_clear_error();
    SSL_CTX_free(context);
    return NULL;
}

/* NULL when the CA file cannot be read. */
static struct trust *trust_take(const char *ca_file) {
    for (struct trust *trust = trusts; trust; trust = trust->next)
        if (strcmp(trust->ca_file, ca_file) == 0) {
            trust->users++;
            return trust;
        }
    size_t size = strlen(ca_file) + 1;
    struct trust *trust = malloc(sizeof(*trust) + size);
    SSL_CTX *context = trust ? make_context(ca_file) : NULL;
    if (!context) {
        free(trust);
        return NULL;
    }
    *trust = (struct trust){.next = trusts, .context = context, .users = 1};
    memcpy(trust->ca_file, ca_file, size);
    trusts = trust;
    return trust;
}

/* Read anew after the last use, so that a changed file counts. */
static void trust_give(struct trust *trust) {
    if (!trust || --trust->users)
        return;
    struct trust **place = &trusts;
    while (*place != trust)
        place = &(*place)->next;
    *place = trust->next;
    SSL_CTX_free(trust->context);
    free(trust);
}

static int tls_prepare(struct uplink *uplink, const struct uplink_options *options) {
    uplink->trust = trust_take(options->ca_file ? options->ca_file : "");
    if (!uplink->trust)
        return UV_ENOENT;
    uplink->ssl = SSL_new(uplink->trust->context);
    BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
    if (!uplink->ssl || !in || !out) {
        BIO_free(in);
        BIO_free(out);
        return UV_ENOMEM;
    }
    BIO_set_mem_eof_return(in, -1); /* empty means "wait", not "ended" */
    SSL_set_bio(uplink->ssl, in, out);
    SSL_set_connect_state(uplink->ssl);
    return options->host && expect_host(uplink->ssl, options->host) ? 0 : UV_EINVAL;
}

static void tls_free(struct uplink *uplink) {
    SSL_free(uplink->ssl);
    trust_give(uplink->trust);
    uplink->ssl = NULL;
    uplink->trust = NULL;
}

/* ---- both ---- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer) {
    const struct uplink *uplink = container_of(handle, struct uplink, tcp);
    bool picky = !uplink->ssl && uplink->appetite > 0 && uplink->appetite < sizeof(input);
    (void)suggested;
    *buffer = uv_buf_init((char *)input, picky ? (unsigned)uplink->appetite : sizeof(input));
}

static void on_read(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer) {
    (void)buffer;
    struct uplink *uplink = container_of(stream, struct uplink, tcp);
    if (length > 0)
        stream_acknowledge(stream); /* brokers wait for it, mosquitto unless told otherwise */
    if (length < 0) {
        if (uplink->ssl && !uplink->up && length == UV_EOF)
            tls_failed(uplink);
        fail(uplink, (int)length);
    } else if (length > 0 && uplink->ssl) {
        tls_input(uplink, input, (size_t)length);
    } else if (length > 0) {
        uplink->options.on_data(uplink, input, (size_t)length);
    }
}

static void on_connected(uv_connect_t *request, int status) {
    struct uplink *uplink = container_of(request, struct uplink, connect);
    if (uplink->closing)
        return;
    if (status == 0)
        status = uv_tcp_nodelay(&uplink->tcp, 1);
    if (status == 0)
        status = uv_read_start((uv_stream_t *)&uplink->tcp, on_alloc, on_read);
    if (status) {
        fail(uplink, status);
        return;
    }
    if (!uplink->ssl) {
        became_up(uplink);
        return;
    }
    status = shake_hands(uplink);
    if (status != UV_EAGAIN)
        fail(uplink, status ? status : ERR_ETLS);
}

static void on_closed(uv_handle_t *handle) {
    struct uplink *uplink = container_of(handle, struct uplink, tcp);
    tls_free(uplink);
    if (uplink->closed)
        uplink->closed(uplink);
}

int uplink_open(struct uplink *uplink, uv_loop_t *loop, const struct uplink_options *options) {
    memset(uplink, 0, sizeof(*uplink));
    uplink->options = *options;
    int status = options->tls ? tls_prepare(uplink, options) : 0;
    if (status == 0)
        status = uv_tcp_init(loop, &uplink->tcp);
    if (status) {
        tls_free(uplink);
        return status;
    }
    return 0;
}

int uplink_connect(struct uplink *uplink, const struct sockaddr *remote) {
    return uv_tcp_connect(&uplink->connect, &uplink->tcp, remote, on_connected);
}

int uplink_write(struct uplink *uplink, const void *bytes, size_t length) {
    if (!uplink->up || uplink->over || uplink->closing)
        return UV_ENOTCONN;
    if (uv_stream_get_write_queue_size((uv_stream_t *)&uplink->tcp) + length > UPLINK_QUEUE_LIMIT)
        return UV_ENOBUFS;
    if (!uplink->ssl)
        return stream_send((uv_stream_t *)&uplink->tcp, bytes, length);
    ERR_clear_error();
    if (SSL_write(uplink->ssl, bytes, (int)length) != (int)length)
        return tls_failed(uplink);
    return flush(uplink);
}

void uplink_pause(struct uplink *uplink) {
    uv_read_stop((uv_stream_t *)&uplink->tcp);
}

void uplink_resume(struct uplink *uplink) {
    if (!uplink->over && !uplink->closing)
        uv_read_start((uv_stream_t *)&uplink->tcp, on_alloc, on_read);
}

void uplink_close(struct uplink *uplink, void (*closed)(struct uplink *uplink)) {
    if (uplink->ssl && uplink->up && !uplink->over) {
        SSL_shutdown(uplink->ssl);
        flush(uplink);
    }
    uplink->closing = true;
    uplink->closed = closed;
    uv_close((uv_handle_t *)&uplink->tcp, on_closed);
}
