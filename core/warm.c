#include "core/warm.h"

#include <openssl/ssl.h>

static _Thread_local struct {
    struct warmth *warmest, *coldest;
    unsigned count;
} warm;

static void unlink_(struct warmth *session) {
    *(session->warmer ? &session->warmer->colder : &warm.warmest) = session->colder;
    *(session->colder ? &session->colder->warmer : &warm.coldest) = session->warmer;
}

static void put_first(struct warmth *session) {
    session->warmer = NULL;
    session->colder = warm.warmest;
    *(warm.warmest ? &warm.warmest->warmer : &warm.coldest) = session;
    warm.warmest = session;
}

/* Buffers that hold a part of a record are OpenSSL's to free, once it has been read. */
static void cool(struct warmth *session) {
    SSL_set_mode(session->ssl, SSL_MODE_RELEASE_BUFFERS);
    SSL_free_buffers(session->ssl);
    warm_forget(session);
}

void warm_use(struct warmth *session, SSL *ssl) {
    if (warm.warmest == session)
        return;
    if (session->ssl) {
        unlink_(session);
    } else {
        if (warm.count == WARM_SESSIONS)
            cool(warm.coldest);
        warm.count++;
        session->ssl = ssl;
        SSL_clear_mode(ssl, SSL_MODE_RELEASE_BUFFERS);
    }
    put_first(session);
}

void warm_forget(struct warmth *session) {
    if (!session->ssl)
        return;
    unlink_(session);
    warm.count--;
    session->ssl = NULL;
}
