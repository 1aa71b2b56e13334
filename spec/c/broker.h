/* broker: an MQTT broker for tests, on the test's own loop, that can be as bad as one likes.
 *
 * Provides  struct broker on a free loopback port, plain or TLS, with its manners in `mode`
 * It serves one topic to each client and knows QoS 0 alone; real brokers are tried in spec/. */
#ifndef SPEC_C_BROKER_H
#define SPEC_C_BROKER_H

#include "core/loop.h"
#include "core/mqtt_frame.h"
#include "core/stream.h"

#include <netinet/in.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

enum broker_mode {
    BROKER_GOOD,
    BROKER_SILENT,    /* accepts, says nothing */
    BROKER_DROPS,     /* ends each connection after 100 ms */
    BROKER_REFUSES,   /* CONNACK with `code` */
    BROKER_DENIES,    /* SUBACK with 0x80 */
    BROKER_GARBAGE,   /* answers with bytes that are no MQTT */
    BROKER_DEAF,      /* does not answer PINGREQ */
    BROKER_IMPATIENT, /* PUBLISH before CONNACK */
};

struct broker_client {
    struct broker *broker;
    struct broker_client *next;
    uv_tcp_t tcp;
    uv_timer_t timer;
    SSL *ssl;
    struct mqtt_cutter cutter;
    char topic[64];
    bool connected;
    int closes;
};

struct broker {
    uv_tcp_t server;
    enum broker_mode mode;
    uint8_t code;
    SSL_CTX *context; /* NULL for plain */
    struct broker_client *clients;
    int accepted, connects, subscribes, publishes, pings, goodbyes;
    bool together; /* CONNECT and SUBSCRIBE came in one read */
    char sni[64], client_id[64];
    char payload[64]; /* of the last message */
};

static inline void broker_send(struct broker_client *client, const void *bytes, size_t length) {
    if (uv_is_closing((uv_handle_t *)&client->tcp))
        return;
    if (!client->ssl) {
        stream_send((uv_stream_t *)&client->tcp, bytes, length);
        return;
    }
    uint8_t out[32768];
    int count;
    SSL_write(client->ssl, bytes, (int)length);
    while ((count = BIO_read(SSL_get_wbio(client->ssl), out, sizeof(out))) > 0)
        stream_send((uv_stream_t *)&client->tcp, out, (size_t)count);
}

static inline void broker_client_closed(uv_handle_t *handle) {
    struct broker_client *client = handle->type == UV_TCP
                                       ? container_of(handle, struct broker_client, tcp)
                                       : container_of(handle, struct broker_client, timer);
    if (--client->closes)
        return;
    for (struct broker_client **place = &client->broker->clients; *place; place = &(*place)->next)
        if (*place == client) {
            *place = client->next;
            break;
        }
    SSL_free(client->ssl);
    mqtt_cutter_free(&client->cutter);
    free(client);
}

static inline void broker_drop(struct broker_client *client) {
    if (uv_is_closing((uv_handle_t *)&client->tcp))
        return;
    client->closes = 2;
    uv_close((uv_handle_t *)&client->tcp, broker_client_closed);
    uv_close((uv_handle_t *)&client->timer, broker_client_closed);
}

/* A PUBLISH packet; `length` may be a lie, `flags` holds QoS and the retained bit. */
static inline size_t broker_publish(uint8_t *out, uint8_t flags, const char *topic,
                                    const void *payload, size_t payload_length, size_t claimed) {
    size_t topic_length = strlen(topic),
           remaining = claimed + 2 + topic_length + (flags & 6 ? 2 : 0), at = 1;
    out[0] = (uint8_t)(MQTT_PUBLISH << 4 | flags);
    do {
        out[at++] = (uint8_t)((remaining & 0x7f) | (remaining > 0x7f ? 0x80 : 0));
        remaining >>= 7;
    } while (remaining);
    out[at++] = (uint8_t)(topic_length >> 8);
    out[at++] = (uint8_t)topic_length;
    memcpy(out + at, topic, topic_length);
    at += topic_length;
    if (flags & 6) {
        out[at++] = 0;
        out[at++] = 7;
    }
    memcpy(out + at, payload, payload_length);
    return at + payload_length;
}

static inline void broker_say(struct broker *broker, uint8_t flags, const char *topic,
                              const char *text) {
    uint8_t packet[512];
    size_t length = broker_publish(packet, flags, topic, text, strlen(text), strlen(text));
    for (struct broker_client *client = broker->clients; client; client = client->next)
        broker_send(client, packet, length);
}

static inline void broker_packet(struct broker_client *client, const struct mqtt_packet *packet) {
    struct broker *broker = client->broker;
    struct mqtt_publish message;
    /* A ClientHello, taken for MQTT, may hold anything. */
    if (packet->type == MQTT_CONNECT)
        client->connected = packet->body_length > 12 && memcmp(packet->body, "\0\4MQTT", 6) == 0;
    if (!client->connected)
        return;
    switch ((int)packet->type) {
    case MQTT_CONNECT:
        broker->connects++;
        snprintf(broker->client_id, sizeof(broker->client_id), "%.*s", packet->body[11],
                 packet->body + 12);
        if (broker->mode == BROKER_IMPATIENT)
            broker_say(broker, 0, "t", "early");
        if (broker->mode == BROKER_GARBAGE)
            broker_send(client, "HTTP/1.1 400 Bad Request\r\n\r\n", 28);
        else
            broker_send(client,
                        (uint8_t[]){0x20, 2, 0, broker->mode == BROKER_REFUSES ? broker->code : 0},
                        4);
        break;
    case MQTT_SUBSCRIBE:
        broker->subscribes++;
        snprintf(client->topic, sizeof(client->topic), "%.*s", packet->body[3], packet->body + 4);
        broker_send(client,
                    (uint8_t[]){0x90, 3, packet->body[0], packet->body[1],
                                broker->mode == BROKER_DENIES ? 0x80 : 0},
                    5);
        break;
    case MQTT_PUBLISH:
        if (mqtt_publish_read(packet, &message))
            break;
        broker->publishes++;
        snprintf(broker->payload, sizeof(broker->payload), "%.*s", (int)message.payload_length,
                 message.payload);
        for (struct broker_client *to = broker->clients; to; to = to->next)
            if (strlen(to->topic) == message.topic_length &&
                memcmp(to->topic, message.topic, message.topic_length) == 0)
                broker_send(to, packet->bytes, packet->length);
        break;
    case MQTT_PINGREQ:
        broker->pings++;
        if (broker->mode != BROKER_DEAF)
            broker_send(client, (uint8_t[]){0xd0, 0}, 2);
        break;
    case MQTT_DISCONNECT:
        broker->goodbyes++;
        broker_drop(client);
    }
}

static inline void broker_input(struct broker_client *client, const uint8_t *bytes, size_t length) {
    struct mqtt_packet packet;
    int before = client->broker->connects;
    while (mqtt_cut(&client->cutter, &bytes, &length, &packet) > 0) {
        broker_packet(client, &packet);
        if (packet.type == MQTT_SUBSCRIBE && client->broker->connects != before)
            client->broker->together = true;
    }
}

static inline void broker_alloc(uv_handle_t *handle, size_t size, uv_buf_t *buffer) {
    static char input[65536];
    (void)handle, (void)size;
    *buffer = uv_buf_init(input, sizeof(input));
}

static inline void broker_read(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer) {
    struct broker_client *client = container_of(stream, struct broker_client, tcp);
    if (length < 0) {
        broker_drop(client);
    } else if (client->broker->mode == BROKER_SILENT) {
        return;
    } else if (!client->ssl) {
        broker_input(client, (const uint8_t *)buffer->base, (size_t)length);
    } else {
        uint8_t plain[4096];
        int count;
        BIO_write(SSL_get_rbio(client->ssl), buffer->base, (int)length);
        while ((count = SSL_read(client->ssl, plain, sizeof(plain))) > 0) {
            const char *sni = SSL_get_servername(client->ssl, TLSEXT_NAMETYPE_host_name);
            snprintf(client->broker->sni, sizeof(client->broker->sni), "%s", sni ? sni : "");
            broker_input(client, plain, (size_t)count);
        }
        while ((count = BIO_read(SSL_get_wbio(client->ssl), plain, sizeof(plain))) > 0)
            stream_send(stream, plain, (size_t)count);
    }
}

static inline void broker_drop_late(uv_timer_t *timer) {
    broker_drop(container_of(timer, struct broker_client, timer));
}

static inline void broker_accept(uv_stream_t *server, int status) {
    struct broker *broker = container_of(server, struct broker, server);
    struct broker_client *client = calloc(1, sizeof(*client));
    (void)status;
    broker->accepted++;
    client->broker = broker;
    client->next = broker->clients;
    client->cutter.limit = 65536;
    broker->clients = client;
    uv_tcp_init(server->loop, &client->tcp);
    uv_timer_init(server->loop, &client->timer);
    uv_accept(server, (uv_stream_t *)&client->tcp);
    uv_tcp_nodelay(&client->tcp, 1);
    if (broker->context) {
        client->ssl = SSL_new(broker->context);
        SSL_set_bio(client->ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
        SSL_set_accept_state(client->ssl);
    }
    if (broker->mode == BROKER_DROPS)
        uv_timer_start(&client->timer, broker_drop_late, 100, 0);
    uv_read_start((uv_stream_t *)&client->tcp, broker_alloc, broker_read);
}

static inline struct sockaddr_in broker_start(struct broker *broker, uv_loop_t *loop) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int size = sizeof(address);
    uv_tcp_init(loop, &broker->server);
    uv_tcp_bind(&broker->server, (struct sockaddr *)&address, 0);
    uv_listen((uv_stream_t *)&broker->server, 64, broker_accept);
    uv_tcp_getsockname(&broker->server, (struct sockaddr *)&address, &size);
    return address;
}

static inline void broker_stop(struct broker *broker) {
    if (!uv_is_closing((uv_handle_t *)&broker->server))
        uv_close((uv_handle_t *)&broker->server, NULL);
    for (struct broker_client *client = broker->clients; client; client = client->next)
        broker_drop(client);
}

/* ---- certificates ---- */

struct authority {
    EVP_PKEY *key;
    X509 *certificate;
};

static inline X509 *certify(EVP_PKEY *key, const char *name, const char *alternatives,
                            const struct authority *by) {
    X509 *certificate = X509_new();
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), rand());
    X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    X509_NAME *subject = X509_get_subject_name(certificate);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(certificate, by ? X509_get_subject_name(by->certificate) : subject);
    X509_EXTENSION *extension =
        alternatives ? X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, alternatives)
                     : X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, "critical,CA:TRUE");
    X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
    X509_sign(certificate, by ? by->key : key, EVP_sha256());
    return certificate;
}

static inline struct authority authority_make(const char *file) {
    struct authority authority = {.key = EVP_EC_gen("P-256")};
    authority.certificate = certify(authority.key, "test authority", NULL, NULL);
    FILE *out = fopen(file, "w");
    PEM_write_X509(out, authority.certificate);
    fclose(out);
    return authority;
}

static inline void authority_free(struct authority *authority) {
    EVP_PKEY_free(authority->key);
    X509_free(authority->certificate);
}

/* A server context whose certificate is for `alternatives`, as in "DNS:broker.test,IP:127.0.0.1".
 */
static inline SSL_CTX *broker_context(const struct authority *authority, const char *alternatives) {
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = certify(key, "test broker", alternatives, authority);
    SSL_CTX_use_certificate(context, certificate);
    SSL_CTX_use_PrivateKey(context, key);
    X509_free(certificate);
    EVP_PKEY_free(key);
    return context;
}

#endif
