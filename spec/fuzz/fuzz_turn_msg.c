/* Any bytes, as a server's answers: parsed within bounds, what is accepted keeps its promises, and
 * what a login learns from it makes requests that are read back as they were. */
#include "core/turn_msg.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void must(bool condition) {
    if (!condition)
        abort();
}

static void check_endpoint(const struct stun_endpoint *endpoint) {
    must(endpoint->ip.family == 0 || endpoint->ip.family == 4 || endpoint->ip.family == 6);
}

static void ask(const struct turn_login *login, const struct turn_msg *message) {
    static const uint8_t id[STUN_ID_SIZE];
    uint8_t out[TURN_REQUEST_MAX];
    struct turn_msg back;
    struct stun_endpoint peer = message->peer;
    struct turn_request request = {.method = TURN_CONNECT, .peers = &peer, .peer_count = 1};
    size_t length = turn_write(&request, login, id, out);
    must(length > 0 && turn_msg_parse(out, length, &back) == 0);
    must(back.peer.port == peer.port && ip_equal(&back.peer.ip, &peer.ip));
    must(back.stun.nonce.length == (login->ready ? login->nonce_length : 0));
    must(!login->ready || stun_msg_is_by(out, &back.stun, login->key, sizeof login->key));
    request =
        (struct turn_request){.method = TURN_CONNECTION_BIND, .connection = message->connection};
    length = turn_write(&request, login, id, out);
    must(turn_msg_parse(out, length, &back) == 0 && back.connection == message->connection);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
    struct turn_login login;
    struct turn_msg message;
    if (turn_msg_parse(bytes, length, &message) != 0)
        return 0;
    check_endpoint(&message.relayed);
    check_endpoint(&message.peer);
    check_endpoint(&message.alternate);
    must(message.has_lifetime || message.lifetime_s == 0);
    must(message.has_connection || message.connection == 0);
    must(turn_login_init(&login, "user", "password") == 0);
    bool learned = turn_login_learn(&login, &message.stun);
    must(learned == login.ready);
    must(!learned || (login.nonce_length > 0 && login.nonce_length <= TURN_TEXT_MAX &&
                      strlen(login.realm) <= TURN_TEXT_MAX));
    if (message.peer.ip.family != 0)
        ask(&login, &message);
    return 0;
}
