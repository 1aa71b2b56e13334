#include "core/stun_msg.h"
#include "core/bytes.h"
#include "core/err.h"

#include <string.h>

#define MAGIC_COOKIE 0x2112A442u       /* RFC 8489, 5 */
#define FINGERPRINT_MASK 0x5354554Eu   /* RFC 8489, 14.7: "STUN" */
#define CRC32_POLYNOMIAL 0xEDB88320u   /* ISO 3309, reflected */
#define COMPREHENSION_OPTIONAL 0x8000u /* RFC 8489, 14 */
#define FAMILY_IPV4 1                  /* RFC 8489, 14.1 */
#define FAMILY_IPV6 2

enum attribute { /* RFC 8489, 18.3; the CHANGE ones are RFC 3489's, which old servers still send */
                 MAPPED_ADDRESS = 0x0001,
                 CHANGE_REQUEST = 0x0003,
                 SOURCE_ADDRESS = 0x0004,
                 CHANGED_ADDRESS = 0x0005,
                 USERNAME = 0x0006,
                 MESSAGE_INTEGRITY = 0x0008,
                 ERROR_CODE = 0x0009,
                 UNKNOWN_ATTRIBUTES = 0x000A,
                 REALM = 0x0014,
                 NONCE = 0x0015,
                 MESSAGE_INTEGRITY_SHA256 = 0x001C,
                 XOR_MAPPED_ADDRESS = 0x0020,
                 FINGERPRINT = 0x8028,
};

static uint32_t crc32(const uint8_t *bytes, size_t length) {
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t i = 0; i < length; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (CRC32_POLYNOMIAL & (0u - (crc & 1)));
    }
    return ~crc;
}

size_t stun_msg_request(const uint8_t id[STUN_ID_SIZE], uint8_t out[STUN_HEADER_SIZE]) {
    static const uint8_t start[] = {0,    1,    0,    0,
                                    0x21, 0x12, 0xA4, 0x42}; /* Binding, no attributes */
    memcpy(out, start, sizeof start);
    memcpy(out + sizeof start, id, STUN_ID_SIZE);
    return STUN_HEADER_SIZE;
}

/* (XOR-)MAPPED-ADDRESS (RFC 8489, 14.1 and 14.2): 0, family, port 16, address 32 or 128. `key` is
 * the cookie and the transaction id, which the XOR form is hidden with, or zeros. */
static bool read_address(const uint8_t *value, size_t length, const uint8_t key[16], struct ip *ip,
                         uint16_t *port) {
    if (length < 4)
        return false;
    size_t size = value[1] == FAMILY_IPV4 ? 4 : value[1] == FAMILY_IPV6 ? 16 : 0;
    if (size == 0 || length != 4 + size)
        return false;
    *ip = (struct ip){.family = size == 4 ? 4 : 6};
    *port = get_u16(value + 2) ^ get_u16(key);
    for (size_t i = 0; i < size; i++)
        ip->bytes[i] = value[4 + i] ^ key[i];
    return true;
}

struct reader {
    const uint8_t *message;
    struct stun_msg *out;
    bool xored;  /* the address came from the form that is to be preferred */
    bool sealed; /* after an integrity attribute only FINGERPRINT counts (RFC 8489, 14.5) */
    bool last;   /* FINGERPRINT was read, which nothing may follow (RFC 8489, 14.7) */
};

static int read_attribute(struct reader *reader, uint16_t type, const uint8_t *value,
                          size_t length) {
    static const uint8_t zeros[16];
    struct stun_msg *out = reader->out;
    struct ip ip;
    uint16_t port;
    if (reader->last)
        return ERR_EFORMAT;
    if (reader->sealed && type != FINGERPRINT)
        return 0;
    switch (type) {
    case XOR_MAPPED_ADDRESS:
        if (!read_address(value, length, reader->message + 4, &ip, &port))
            return ERR_EFORMAT;
        if (!reader->xored) {
            out->mapped = ip;
            out->mapped_port = port;
        }
        reader->xored = true;
        return 0;
    case MAPPED_ADDRESS:
        if (!read_address(value, length, zeros, &ip, &port))
            return ERR_EFORMAT;
        if (out->mapped.family == 0) {
            out->mapped = ip;
            out->mapped_port = port;
        }
        return 0;
    case ERROR_CODE: /* RFC 8489, 14.8: 21 bits reserved, class 3 bits, number 8 bits, a phrase */
        if (length < 4 || (value[2] & 7) < 3 || (value[2] & 7) > 6 || value[3] > 99)
            return ERR_EFORMAT;
        if (out->error == 0)
            out->error = (uint16_t)((value[2] & 7) * 100 + value[3]);
        return 0;
    case FINGERPRINT: /* over all that stands before it */
        if (length != 4 ||
            get_u32(value) !=
                (crc32(reader->message, (size_t)(value - 4 - reader->message)) ^ FINGERPRINT_MASK))
            return ERR_EFORMAT;
        out->fingerprint = reader->last = true;
        return 0;
    case MESSAGE_INTEGRITY:
    case MESSAGE_INTEGRITY_SHA256:
        reader->sealed = true;
        return 0;
    case CHANGE_REQUEST:
    case SOURCE_ADDRESS:
    case CHANGED_ADDRESS:
    case USERNAME:
    case UNKNOWN_ATTRIBUTES:
    case REALM:
    case NONCE:
        return 0;
    default:
        if (type < COMPREHENSION_OPTIONAL && out->unknown == 0)
            out->unknown = type;
        return 0;
    }
}

int stun_msg_parse(const uint8_t *bytes, size_t length, struct stun_msg *out) {
    *out = (struct stun_msg){0};
    if (length < STUN_HEADER_SIZE || length % 4 != 0 || bytes[0] > 0x3F ||
        get_u16(bytes + 2) != length - STUN_HEADER_SIZE || get_u32(bytes + 4) != MAGIC_COOKIE)
        return ERR_EFORMAT;
    uint16_t type = get_u16(bytes); /* RFC 8489, 5: the class is bits 4 and 8 of the type */
    out->class = (enum stun_class)((type >> 4 & 1) | (type >> 7 & 2));
    out->method = (uint16_t)((type & 0x000F) | (type >> 1 & 0x0070) | (type >> 2 & 0x0F80));
    memcpy(out->id, bytes + 8, STUN_ID_SIZE);
    struct reader reader = {.message = bytes, .out = out};
    for (size_t at = STUN_HEADER_SIZE; at < length;) {
        size_t size =
            get_u16(bytes + at + 2); /* four bytes are left: all lengths are multiples of four */
        if (size > length - at - 4)
            return ERR_EFORMAT;
        int status = read_attribute(&reader, get_u16(bytes + at), bytes + at + 4, size);
        if (status != 0)
            return status;
        at += 4 + ((size + 3) & ~(size_t)3);
    }
    return 0;
}
