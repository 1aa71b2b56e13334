#include "core/warm.h"
#include "spec/c/check.h"

#include <openssl/ssl.h>
#include <stdbool.h>

#define SESSIONS (WARM_SESSIONS + 4)

static SSL *sessions[SESSIONS];
static struct warmth places[SESSIONS];

static void open_sessions(void) {
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    for (int i = 0; i < SESSIONS; i++)
        sessions[i] = SSL_new(context);
    SSL_CTX_free(context);
}

static void close_sessions(void) {
    for (int i = 0; i < SESSIONS; i++) {
        warm_forget(&places[i]);
        SSL_free(sessions[i]);
    }
}

static void use(int i) {
    warm_use(&places[i], sessions[i]);
}

static bool is_warm(int i) {
    return !(SSL_get_mode(sessions[i]) & SSL_MODE_RELEASE_BUFFERS);
}

static int warm_count(void) {
    int count = 0;
    for (int i = 0; i < SESSIONS; i++)
        count += is_warm(i);
    return count;
}

static void those_used_last_are_warm(void) {
    open_sessions();
    CHECK(!is_warm(0));
    for (int i = 0; i < SESSIONS; i++)
        use(i);
    CHECK_EQ(warm_count(), WARM_SESSIONS);
    CHECK(!is_warm(3));
    CHECK(is_warm(4));
    close_sessions();
}

static void use_keeps_one_warm(void) {
    open_sessions();
    for (int i = 0; i < WARM_SESSIONS; i++)
        use(i);
    use(0);
    use(WARM_SESSIONS);
    CHECK(is_warm(0));
    CHECK(!is_warm(1));
    close_sessions();
}

static void one_that_ends_makes_room(void) {
    open_sessions();
    for (int i = 0; i < WARM_SESSIONS; i++)
        use(i);
    warm_forget(&places[5]);
    warm_forget(&places[5]);
    use(WARM_SESSIONS);
    CHECK(is_warm(0));
    use(WARM_SESSIONS + 1);
    CHECK(!is_warm(0));
    close_sessions();
}

int main(void) {
    RUN(those_used_last_are_warm);
    RUN(use_keeps_one_warm);
    RUN(one_that_ends_makes_room);
    return check_report();
}
