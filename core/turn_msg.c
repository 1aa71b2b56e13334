#include "core/turn_msg.h"
#include "core/bytes.h"
#include "core/crypto.h"
#include "core/err.h"

#include <string.h>

#define PROTOCOL_TCP 6   /* RFC 6062, 5.1: in REQUESTED-TRANSPORT */
#define REQUESTED_IPV6 2 /* RFC 8656, 18.4 */
#define UNAUTHENTICATED 401
#define STALE_NONCE 438

/* --- writing ------------------------------------------------------------------------------- */

static void write_number(struct stun_writer *writer, uint16_t type, uint32_t value) {
    uint8_t bytes[4];
    put_u32(bytes, value);
    stun_write_bytes(writer, type, bytes, sizeof bytes);
}

static void sign(struct stun_writer *writer, const struct turn_login *login) {
    stun_write_bytes(writer, STUN_USERNAME, login->user, strlen(login->user));
    stun_write_bytes(writer, STUN_REALM, login->realm, strlen(login->realm));
    stun_write_bytes(writer, STUN_NONCE, login->nonce, login->nonce_length);
    stun_write_integrity(writer, login->key, sizeof login->key);
}

size_t turn_write(const struct turn_request *request, const struct turn_login *login,
                  const uint8_t id[STUN_ID_SIZE], uint8_t out[TURN_REQUEST_MAX]) {
    struct stun_writer writer;
    stun_write(&writer, out, TURN_REQUEST_MAX, STUN_REQUEST, (uint16_t)request->method, id);
    switch (request->method) {
    case TURN_ALLOCATE: /* the address is IPv4 unless something else is asked for (RFC 8656, 7.2) */
        write_number(&writer, STUN_REQUESTED_TRANSPORT, (uint32_t)PROTOCOL_TCP << 24);
        if (request->family == 6)
            write_number(&writer, STUN_REQUESTED_ADDRESS_FAMILY, (uint32_t)REQUESTED_IPV6 << 24);
        break;
    case TURN_REFRESH:
        write_number(&writer, STUN_LIFETIME, request->lifetime_s);
        break;
    case TURN_CREATE_PERMISSION:
    case TURN_CONNECT:
        if (request->peer_count > TURN_PEERS_MAX)
            return 0;
        for (size_t i = 0; i < request->peer_count; i++)
            stun_write_endpoint(&writer, STUN_XOR_PEER_ADDRESS, &request->peers[i]);
        break;
    case TURN_CONNECTION_BIND:
        write_number(&writer, STUN_CONNECTION_ID, request->connection);
        break;
    case TURN_CONNECTION_ATTEMPT: /* the server's to say */
        return 0;
    }
    if (login && login->ready)
        sign(&writer, login);
    return writer.length;
}

/* --- reading ------------------------------------------------------------------------------- */

/* Of an attribute that is there twice the first one counts (RFC 8489, 14). */
static bool keep_endpoint(const uint8_t *bytes, const struct stun_attribute *attribute,
                          struct stun_endpoint *out) {
    struct stun_endpoint read;
    if (!stun_read_endpoint(bytes, attribute, &read))
        return false;
    if (out->ip.family == 0)
        *out = read;
    return true;
}

static bool keep_number(const struct stun_attribute *attribute, bool *has, uint32_t *out) {
    if (attribute->length != 4)
        return false;
    if (!*has)
        *out = get_u32(attribute->value);
    *has = true;
    return true;
}

static bool read_attribute(const uint8_t *bytes, const struct stun_attribute *attribute,
                           struct turn_msg *out) {
    switch (attribute->type) {
    case STUN_XOR_RELAYED_ADDRESS:
        return keep_endpoint(bytes, attribute, &out->relayed);
    case STUN_XOR_PEER_ADDRESS:
        return keep_endpoint(bytes, attribute, &out->peer);
    case STUN_ALTERNATE_SERVER:
        return keep_endpoint(bytes, attribute, &out->alternate);
    case STUN_LIFETIME:
        return keep_number(attribute, &out->has_lifetime, &out->lifetime_s);
    case STUN_CONNECTION_ID:
        return keep_number(attribute, &out->has_connection, &out->connection);
    default:
        return true;
    }
}

int turn_msg_parse(const uint8_t *bytes, size_t length, struct turn_msg *out) {
    *out = (struct turn_msg){0};
    int status = stun_msg_parse(bytes, length, &out->stun);
    if (status != 0)
        return status;
    for (struct stun_attribute attribute = {0}; stun_msg_next(bytes, length, &attribute);) {
        if (attribute.type == STUN_MESSAGE_INTEGRITY ||
            attribute.type == STUN_MESSAGE_INTEGRITY_SHA256)
            return 0; /* what follows is signed by nobody (RFC 8489, 14.5) */
        if (!read_attribute(bytes, &attribute, out))
            return ERR_EFORMAT;
    }
    return 0;
}

/* --- who asks ------------------------------------------------------------------------------ */

int turn_login_init(struct turn_login *login, const char *user, const char *password) {
    *login = (struct turn_login){0};
    size_t length = strlen(user), password_length = strlen(password);
    if (length == 0 || length > TURN_USER_MAX || password_length > TURN_TEXT_MAX)
        return UV_EINVAL;
    memcpy(login->user, user, length);
    memcpy(login->password, password, password_length);
    return 0;
}

static bool is_of_use(const struct stun_text *text) {
    return text->text && text->length > 0 && text->length <= TURN_TEXT_MAX;
}

/* A new nonce comes with the realm (RFC 8489, 9.2.4), but where it does not, it is still the one.
 */
bool turn_login_learn(struct turn_login *login, const struct stun_msg *answer) {
    if ((answer->error != UNAUTHENTICATED && answer->error != STALE_NONCE) ||
        !is_of_use(&answer->nonce))
        return false;
    if (is_of_use(&answer->realm) && !memchr(answer->realm.text, 0, answer->realm.length)) {
        memcpy(login->realm, answer->realm.text, answer->realm.length);
        login->realm[answer->realm.length] = '\0';
    } else if (!login->ready) {
        return false;
    }
    memcpy(login->nonce, answer->nonce.text, answer->nonce.length);
    login->nonce_length = answer->nonce.length;
    stun_key(login->user, login->realm, login->password, login->key);
    login->ready = true;
    return true;
}

void turn_login_wipe(struct turn_login *login) {
    crypto_wipe(login, sizeof *login);
}
