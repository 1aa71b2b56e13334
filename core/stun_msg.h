/* stun_msg: STUN binding requests and their answers as bytes (RFC 8489).
 *
 * Provides  what a binding look-up sends, and what it may learn from an answer
 * Uses      ip, bytes
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

enum stun_class { STUN_REQUEST, STUN_INDICATION, STUN_SUCCESS, STUN_ERROR };

struct stun_msg {
    enum stun_class class;
    uint16_t method; /* 1 is Binding */
    uint8_t id[STUN_ID_SIZE];
    struct ip mapped; /* XOR-MAPPED-ADDRESS, else MAPPED-ADDRESS; family 0 when there is neither */
    uint16_t mapped_port;
    uint16_t error;   /* ERROR-CODE, 300 to 699; else 0 */
    uint16_t unknown; /* the first attribute that we must understand and do not, else 0 (RFC
                         8489, 6.3) */
    bool fingerprint; /* it had one, and it was right */
};

/* Writes a Binding request without attributes; returns its length. */
size_t stun_msg_request(const uint8_t id[STUN_ID_SIZE], uint8_t out[STUN_HEADER_SIZE]);

/* Reads one whole message. 0, or ERR_EFORMAT: no STUN, lengths that do not fit, a wrong
 * fingerprint. */
int stun_msg_parse(const uint8_t *bytes, size_t length, struct stun_msg *out);

#endif
