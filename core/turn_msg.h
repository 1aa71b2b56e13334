/* turn_msg: what is said to a TURN server about TCP relays, and what it says, as bytes (RFC 8656,
 * RFC 6062).
 *
 * Provides  turn_write: requests; turn_msg_parse: answers and indications; struct turn_login: by
 *           whom, the long-term credential (RFC 8489, 9.2)
 * Uses      stun_msg, ip, bytes
 * Pure: no I/O, no randomness. PASSWORD-ALGORITHMS (RFC 8489, 14.11) is passed over, by which the
 * key is made with MD5 and the integrity with SHA-1, as before it. */
#ifndef CORE_TURN_MSG_H
#define CORE_TURN_MSG_H

#include "core/stun_msg.h"

#define TURN_TEXT_MAX                                                                              \
    763                   /* bytes of a realm or nonce (RFC 8489, 14.9 and 14.10), or a password   \
                           */
#define TURN_USER_MAX 508 /* bytes of a user's name (RFC 8489, 14.3) */
#define TURN_PEERS_MAX 32 /* addresses in one CreatePermission */
#define TURN_MESSAGE_MAX 4096 /* of an answer: longer ones are no answer of use */
#define TURN_REQUEST_MAX 3072 /* of the longest request, with the longest login */

enum turn_method {
    TURN_ALLOCATE = 0x003,
    TURN_REFRESH = 0x004,
    TURN_CREATE_PERMISSION = 0x008,
    TURN_CONNECT = 0x00A,            /* RFC 6062, 6.1, this and the next two */
    TURN_CONNECTION_BIND = 0x00B,    /* on a connection of its own, which then carries bytes */
    TURN_CONNECTION_ATTEMPT = 0x00C, /* an indication: a peer has connected */
};

/* What is asked; which fields count depends on the method. */
struct turn_request {
    enum turn_method method;
    uint8_t family;      /* Allocate: of the relayed address, 4 or 6 */
    uint32_t lifetime_s; /* Refresh; 0 ends the allocation */
    uint32_t connection; /* ConnectionBind */
    const struct stun_endpoint
        *peers; /* Connect: one; CreatePermission: their ports mean nothing */
    size_t peer_count;
};

/* Who asks. The realm and the nonce are the server's. */
struct turn_login {
    char user[TURN_USER_MAX + 1], password[TURN_TEXT_MAX + 1], realm[TURN_TEXT_MAX + 1];
    uint8_t nonce[TURN_TEXT_MAX];
    size_t nonce_length;
    bool ready; /* the server has said realm and nonce */
    uint8_t key[STUN_KEY_SIZE];
};

struct turn_msg {
    struct stun_msg stun;
    struct stun_endpoint relayed;   /* XOR-RELAYED-ADDRESS */
    struct stun_endpoint peer;      /* XOR-PEER-ADDRESS */
    struct stun_endpoint alternate; /* ALTERNATE-SERVER */
    bool has_lifetime, has_connection;
    uint32_t lifetime_s, connection;
};

/* Writes a request, signed if the login is ready; without login unsigned. Its length; 0 when it has
 * too many peers. */
size_t turn_write(const struct turn_request *request, const struct turn_login *login,
                  const uint8_t id[STUN_ID_SIZE], uint8_t out[TURN_REQUEST_MAX]);

/* Reads one whole message. 0, or ERR_EFORMAT as stun_msg_parse, and for the attributes above. */
int turn_msg_parse(const uint8_t *bytes, size_t length, struct turn_msg *out);

/* 0, or UV_EINVAL when a text is empty or too long. */
int turn_login_init(struct turn_login *login, const char *user, const char *password);
/* Takes realm and nonce of an answer with the error 401 or 438; false when it has none of use. */
bool turn_login_learn(struct turn_login *login, const struct stun_msg *answer);
void turn_login_wipe(struct turn_login *login);

#endif
