/* stun_msg: STUN messages as bytes (RFC 8489), with what finds out about NATs (RFC 5780, RFC 3489).
 *
 * Provides  struct stun_writer: a message that grows by attributes; stun_msg_parse: what may be
 *           learned from one; struct stun_attribute: the attributes one by one
 * Uses      ip, bytes, crypto; OpenSSL's SHA-1 and MD5, which nothing else may use
 * Pure: no I/O, no randomness.
 *
 *   0                   1                   2                   3       (RFC 8489, 5)
 *   0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *  +---+---------------------------+-------------------------------+
 *  |0 0| message type              | length of what follows 20     |
 *  +---+---------------------------+-------------------------------+
 *  | magic cookie 0x2112A442                                       |
 *  +---------------------------------------------------------------+
 *  | transaction id, 96 bits                                       |
 *  +---------------------------------------------------------------+
 *  | attributes: type 16, length 16, value, padded to 4            |     (RFC 8489, 14)
 */
#ifndef CORE_STUN_MSG_H
#define CORE_STUN_MSG_H

#include "core/ip.h"

#define STUN_HEADER_SIZE 20
#define STUN_ID_SIZE 12
#define STUN_BINDING 1     /* the method (RFC 8489, 18.2) */
#define STUN_QUERY_SIZE 28 /* of a Binding request with CHANGE-REQUEST */
#define STUN_KEY_SIZE 16   /* of a long-term key */

enum stun_class { STUN_REQUEST, STUN_INDICATION, STUN_SUCCESS, STUN_ERROR };

/* RFC 8489, 18.3; [5780] RFC 5780, 7; [3489] RFC 3489, 11.2, for old servers; relays' (turn_msg)
 * [8656] RFC 8656, 18, and [6062] RFC 6062, 6.2. */
enum stun_type {
    STUN_MAPPED_ADDRESS = 0x0001,
    STUN_CHANGE_REQUEST = 0x0003,  /* [5780] */
    STUN_SOURCE_ADDRESS = 0x0004,  /* [3489] */
    STUN_CHANGED_ADDRESS = 0x0005, /* [3489] */
    STUN_USERNAME = 0x0006,
    STUN_MESSAGE_INTEGRITY = 0x0008,
    STUN_ERROR_CODE = 0x0009,
    STUN_UNKNOWN_ATTRIBUTES = 0x000A,
    STUN_REFLECTED_FROM = 0x000B,   /* [3489] */
    STUN_CHANNEL_NUMBER = 0x000C,   /* [8656] */
    STUN_LIFETIME = 0x000D,         /* [8656] */
    STUN_XOR_PEER_ADDRESS = 0x0012, /* [8656] */
    STUN_DATA = 0x0013,             /* [8656] */
    STUN_REALM = 0x0014,
    STUN_NONCE = 0x0015,
    STUN_XOR_RELAYED_ADDRESS = 0x0016,      /* [8656] */
    STUN_REQUESTED_ADDRESS_FAMILY = 0x0017, /* [8656] */
    STUN_EVEN_PORT = 0x0018,                /* [8656] */
    STUN_REQUESTED_TRANSPORT = 0x0019,      /* [8656] */
    STUN_DONT_FRAGMENT = 0x001A,            /* [8656] */
    STUN_MESSAGE_INTEGRITY_SHA256 = 0x001C,
    STUN_PASSWORD_ALGORITHM = 0x001D,
    STUN_USERHASH = 0x001E,
    STUN_XOR_MAPPED_ADDRESS = 0x0020,
    STUN_RESERVATION_TOKEN = 0x0022, /* [8656] */
    STUN_CONNECTION_ID = 0x002A,     /* [6062] */
    STUN_SOFTWARE = 0x8022,
    STUN_ALTERNATE_SERVER = 0x8023,
    STUN_FINGERPRINT = 0x8028,
    STUN_RESPONSE_ORIGIN = 0x802B, /* [5780] */
    STUN_OTHER_ADDRESS = 0x802C,   /* [5780] */
};

/* From where a server is to answer (RFC 5780, 7.2): bits of CHANGE-REQUEST. */
enum stun_change {
    STUN_CHANGE_NONE = 0,
    STUN_CHANGE_PORT = 2,
    STUN_CHANGE_ADDRESS = 4,
    STUN_CHANGE_BOTH = 6
};

struct stun_endpoint {
    struct ip ip; /* of family 0 when there is none */
    uint16_t port;
};

struct stun_text { /* within the message that was read; NULL when there is none */
    const char *text;
    size_t length;
};

struct stun_msg {
    enum stun_class class;
    uint16_t method;
    uint8_t id[STUN_ID_SIZE];
    struct stun_endpoint mapped; /* XOR-MAPPED-ADDRESS, else MAPPED-ADDRESS */
    struct stun_endpoint origin; /* RESPONSE-ORIGIN, else SOURCE-ADDRESS */
    struct stun_endpoint other;  /* OTHER-ADDRESS, else CHANGED-ADDRESS; none when it is 0.0.0.0 */
    struct stun_text software, username, realm, nonce;
    enum stun_change change;
    uint16_t error;   /* ERROR-CODE, 300 to 699; else 0 */
    uint16_t unknown; /* the first attribute that we must understand and do not, else 0 (RFC
                         8489, 6.3) */
    size_t integrity; /* where MESSAGE-INTEGRITY begins; 0 when there is none */
    bool fingerprint; /* it had one, and it was right */
};

/* --- writing: begin, add, take writer.length --------------------------------------------- */

struct stun_writer {
    uint8_t *bytes;
    size_t size, length; /* length is 0 once something did not fit */
};

void stun_write(struct stun_writer *writer, uint8_t *bytes, size_t size, enum stun_class class,
                uint16_t method, const uint8_t id[STUN_ID_SIZE]);
void stun_write_bytes(struct stun_writer *writer, uint16_t type, const void *value, size_t length);
void stun_write_endpoint(struct stun_writer *writer, uint16_t type,
                         const struct stun_endpoint *endpoint); /* XOR-… are hidden as they must */
void stun_write_error(struct stun_writer *writer, uint16_t code, const char *reason);
void stun_write_integrity(struct stun_writer *writer, const void *key, size_t key_length);
void stun_write_fingerprint(struct stun_writer *writer); /* the last one */

/* A Binding request; returns its length. Without a change it has no attributes. */
size_t stun_msg_query(const uint8_t id[STUN_ID_SIZE], enum stun_change change,
                      uint8_t out[STUN_QUERY_SIZE]);

/* --- reading ----------------------------------------------------------------------------- */

/* Reads one whole message. 0, or ERR_EFORMAT: no STUN, lengths that do not fit, a wrong
 * fingerprint, an attribute that is not what its type says. */
int stun_msg_parse(const uint8_t *bytes, size_t length, struct stun_msg *out);

/* The length of the message that begins with these 20 bytes, or 0 when none does: how messages are
 * told from each other on a stream (RFC 8489, 6.2.2). */
size_t stun_msg_length(const uint8_t header[STUN_HEADER_SIZE]);

struct stun_attribute {
    uint16_t type;
    const uint8_t *value; /* NULL before the first */
    size_t length;
};

/* Goes to the next attribute (from an all-zero one: to the first) of a message that
 * stun_msg_parse has accepted; false behind the last. */
bool stun_msg_next(const uint8_t *bytes, size_t length, struct stun_attribute *attribute);

/* An address that an attribute of this message holds, whichever it is; false when it is none. */
bool stun_read_endpoint(const uint8_t *bytes, const struct stun_attribute *attribute,
                        struct stun_endpoint *out);

/* Whether MESSAGE-INTEGRITY is there and was made with this key (RFC 8489, 14.5). What stands after
 * it was not read. */
bool stun_msg_is_by(const uint8_t *bytes, const struct stun_msg *msg, const void *key,
                    size_t key_length);

/* The long-term key: MD5 of user:realm:password (RFC 8489, 9.2.2). A short-term key is the password
 * itself. Passwords are given as OpaqueString (RFC 8265), or SASLprep, would leave them. */
void stun_key(const char *user, const char *realm, const char *password,
              uint8_t out[STUN_KEY_SIZE]);

#endif
