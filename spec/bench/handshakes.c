/* handshakes: what TLS handshakes alone cost, between two sessions in one process, with no sockets
 * and no loop.
 *
 *   handshakes COUNT    prints handshakes per second of the server's side, then of the client's */
#include "spec/bench/plain.h"
#include <openssl/ssl.h>
#include <uv.h>

static SSL *session(SSL_CTX *context, BIO *in, BIO *out) {
    SSL *ssl = SSL_new(context);
    BIO_up_ref(in);
    BIO_up_ref(out);
    SSL_set_bio(ssl, in, out);
    return ssl;
}

static uint64_t spent(SSL *ssl) {
    uint64_t start = uv_hrtime();
    SSL_do_handshake(ssl);
    return uv_hrtime() - start;
}

int main(int count, char **arguments) {
    long wanted = count == 2 ? atol(arguments[1]) : 0;
    SSL_CTX *servers = plain_context(1), *clients = plain_context(0);
    uint64_t server_ns = 0, client_ns = 0;
    if (wanted <= 0) {
        fprintf(stderr, "usage: handshakes COUNT\n");
        return 2;
    }
    for (long i = 0; i < wanted; i++) {
        BIO *up = BIO_new(BIO_s_mem()), *down = BIO_new(BIO_s_mem());
        uint64_t start = uv_hrtime();
        SSL *client = session(clients, down, up);
        SSL_set_connect_state(client);
        client_ns += uv_hrtime() - start;
        start = uv_hrtime();
        SSL *server = session(servers, up, down);
        SSL_set_accept_state(server);
        server_ns += uv_hrtime() - start;
        while (!SSL_is_init_finished(server)) {
            client_ns += spent(client);
            server_ns += spent(server);
        }
        start = uv_hrtime();
        SSL_free(server);
        server_ns += uv_hrtime() - start;
        start = uv_hrtime();
        SSL_free(client);
        client_ns += uv_hrtime() - start;
        BIO_free(up);
        BIO_free(down);
    }
    printf("%.0f %.0f\n", (double)wanted * 1e9 / (double)server_ns,
           (double)wanted * 1e9 / (double)client_ns);
    SSL_CTX_free(servers);
    SSL_CTX_free(clients);
    return 0;
}
