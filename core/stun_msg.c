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
#define ATTRIBUTE_HEADER 4
#define INTEGRITY_SIZE 20 /* SHA-1 */

static uint32_t fingerprint(const uint8_t *bytes, size_t length) {
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t i = 0; i < length; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (CRC32_POLYNOMIAL & (0u - (crc & 1)));
    }
    return ~crc ^ FINGERPRINT_MASK;
}

static size_t padded(size_t length) {
    return (length + 3) & ~(size_t)3;
}

/* Addresses (RFC 8489, 14.1 and 14.2): 0, family, port 16, address 32 or 128. The XOR forms are
 * hidden with `key`: the cookie and the transaction id. */
static const uint8_t *key_of(uint16_t type, const uint8_t *message) {
    static const uint8_t zeros[16];
    bool hidden = type == STUN_XOR_MAPPED_ADDRESS || type == STUN_XOR_PEER_ADDRESS ||
                  type == STUN_XOR_RELAYED_ADDRESS;
    return hidden ? message + 4 : zeros;
}

/* --- writing ------------------------------------------------------------------------------- */

void stun_write(struct stun_writer *writer, uint8_t *bytes, size_t size, enum stun_class class,
                uint16_t method, const uint8_t id[STUN_ID_SIZE]) {
    *writer = (struct stun_writer){.bytes = bytes, .size = size};
    if (size < STUN_HEADER_SIZE)
        return;
    /* RFC 8489, 5: bits 4 and 8 of the type are the class, those between and around the method. */
    unsigned type = (method & 0x000Fu) | (method & 0x0070u) << 1 | (method & 0x0F80u) << 2 |
                    (class & 1u) << 4 | (class & 2u) << 7;
    put_u16(bytes, (uint16_t)type);
    put_u16(bytes + 2, 0);
    put_u32(bytes + 4, MAGIC_COOKIE);
    memcpy(bytes + 8, id, STUN_ID_SIZE);
    writer->length = STUN_HEADER_SIZE;
}

/* Room for a value, padded with zeros, which the message's length counts already; or NULL. */
static uint8_t *grow(struct stun_writer *writer, uint16_t type, size_t length) {
    size_t at = writer->length, end = at + ATTRIBUTE_HEADER + padded(length);
    if (at == 0 || length > UINT16_MAX || end > writer->size ||
        end - STUN_HEADER_SIZE > UINT16_MAX) {
        writer->length = 0;
        return NULL;
    }
    uint8_t *attribute = writer->bytes + at;
    memset(attribute, 0, end - at);
    put_u16(attribute, type);
    put_u16(attribute + 2, (uint16_t)length);
    put_u16(writer->bytes + 2, (uint16_t)(end - STUN_HEADER_SIZE));
    writer->length = end;
    return attribute + ATTRIBUTE_HEADER;
}

void stun_write_bytes(struct stun_writer *writer, uint16_t type, const void *value, size_t length) {
    uint8_t *room = grow(writer, type, length);
    if (room && length > 0)
        memcpy(room, value, length);
}

void stun_write_endpoint(struct stun_writer *writer, uint16_t type,
                         const struct stun_endpoint *endpoint) {
    size_t size = endpoint->ip.family == 4 ? 4 : 16;
    uint8_t *room = grow(writer, type, 4 + size);
    if (!room)
        return;
    const uint8_t *key = key_of(type, writer->bytes);
    room[1] = size == 4 ? FAMILY_IPV4 : FAMILY_IPV6;
    put_u16(room + 2, endpoint->port ^ get_u16(key));
    for (size_t i = 0; i < size; i++)
        room[4 + i] = endpoint->ip.bytes[i] ^ key[i];
}

/* RFC 8489, 14.8: 21 bits reserved, class 3 bits, number 8 bits, a phrase. */
void stun_write_error(struct stun_writer *writer, uint16_t code, const char *reason) {
    size_t length = strlen(reason);
    uint8_t *room = grow(writer, STUN_ERROR_CODE, 4 + length);
    if (!room)
        return;
    room[2] = (uint8_t)(code / 100);
    room[3] = (uint8_t)(code % 100);
    for (size_t i = 0; i < length; i++)
        room[4 + i] = (uint8_t)reason[i];
}

void stun_write_fingerprint(struct stun_writer *writer) {
    uint8_t *room = grow(writer, STUN_FINGERPRINT, 4);
    if (room)
        put_u32(room,
                fingerprint(writer->bytes, (size_t)(room - ATTRIBUTE_HEADER - writer->bytes)));
}

size_t stun_msg_query(const uint8_t id[STUN_ID_SIZE], enum stun_change change,
                      uint8_t out[STUN_QUERY_SIZE]) {
    struct stun_writer writer;
    stun_write(&writer, out, STUN_QUERY_SIZE, STUN_REQUEST, STUN_BINDING, id);
    if (change != STUN_CHANGE_NONE)
        stun_write_bytes(&writer, STUN_CHANGE_REQUEST, (uint8_t[4]){0, 0, 0, (uint8_t)change}, 4);
    return writer.length;
}

/* --- reading ------------------------------------------------------------------------------- */

bool stun_read_endpoint(const uint8_t *bytes, const struct stun_attribute *attribute,
                        struct stun_endpoint *out) {
    const uint8_t *value = attribute->value;
    if (attribute->length < 4)
        return false;
    size_t size = value[1] == FAMILY_IPV4 ? 4 : value[1] == FAMILY_IPV6 ? 16 : 0;
    if (size == 0 || attribute->length != 4 + size)
        return false;
    const uint8_t *key = key_of(attribute->type, bytes);
    *out = (struct stun_endpoint){.ip.family = size == 4 ? 4 : 6,
                                  .port = get_u16(value + 2) ^ get_u16(key)};
    for (size_t i = 0; i < size; i++)
        out->ip.bytes[i] = value[4 + i] ^ key[i];
    return true;
}

struct reader {
    const uint8_t *message;
    struct stun_msg *out;
    bool sealed; /* after an integrity attribute only FINGERPRINT counts (RFC 8489, 14.5) */
    bool last;   /* FINGERPRINT was read, which nothing may follow (RFC 8489, 14.7) */
    struct stun_endpoint old_mapped, old_origin, old_other; /* in the forms that come second */
};

/* Of an attribute that is there twice the first one counts (RFC 8489, 14). */
static int keep_endpoint(const struct reader *reader, const struct stun_attribute *attribute,
                         struct stun_endpoint *out) {
    struct stun_endpoint read;
    if (!stun_read_endpoint(reader->message, attribute, &read))
        return ERR_EFORMAT;
    if (out->ip.family == 0)
        *out = read;
    return 0;
}

static int keep_text(const struct stun_attribute *attribute, struct stun_text *out) {
    if (!out->text)
        *out = (struct stun_text){(const char *)attribute->value, attribute->length};
    return 0;
}

static int read_attribute(struct reader *reader, const struct stun_attribute *attribute) {
    struct stun_msg *out = reader->out;
    const uint8_t *value = attribute->value;
    size_t length = attribute->length;
    size_t at = (size_t)(value - ATTRIBUTE_HEADER - reader->message);
    if (reader->last)
        return ERR_EFORMAT;
    if (reader->sealed && attribute->type != STUN_FINGERPRINT)
        return 0;
    switch (attribute->type) {
    case STUN_XOR_MAPPED_ADDRESS:
        return keep_endpoint(reader, attribute, &out->mapped);
    case STUN_MAPPED_ADDRESS:
        return keep_endpoint(reader, attribute, &reader->old_mapped);
    case STUN_RESPONSE_ORIGIN:
        return keep_endpoint(reader, attribute, &out->origin);
    case STUN_SOURCE_ADDRESS:
        return keep_endpoint(reader, attribute, &reader->old_origin);
    case STUN_OTHER_ADDRESS:
        return keep_endpoint(reader, attribute, &out->other);
    case STUN_CHANGED_ADDRESS:
        return keep_endpoint(reader, attribute, &reader->old_other);
    case STUN_SOFTWARE:
        return keep_text(attribute, &out->software);
    case STUN_USERNAME:
        return keep_text(attribute, &out->username);
    case STUN_REALM:
        return keep_text(attribute, &out->realm);
    case STUN_NONCE:
        return keep_text(attribute, &out->nonce);
    case STUN_CHANGE_REQUEST: /* RFC 5780, 7.2: 29 bits of zeros, address, port, 0 */
        if (length != 4)
            return ERR_EFORMAT;
        out->change = (enum stun_change)(value[3] & STUN_CHANGE_BOTH);
        return 0;
    case STUN_ERROR_CODE:
        if (length < 4 || (value[2] & 7) < 3 || (value[2] & 7) > 6 || value[3] > 99)
            return ERR_EFORMAT;
        if (out->error == 0)
            out->error = (uint16_t)((value[2] & 7) * 100 + value[3]);
        return 0;
    case STUN_FINGERPRINT: /* over all that stands before it */
        if (length != 4 || get_u32(value) != fingerprint(reader->message, at))
            return ERR_EFORMAT;
        out->fingerprint = reader->last = true;
        return 0;
    case STUN_MESSAGE_INTEGRITY:
        if (length != INTEGRITY_SIZE)
            return ERR_EFORMAT;
        out->integrity = at;
        reader->sealed = true;
        return 0;
    case STUN_MESSAGE_INTEGRITY_SHA256:
        reader->sealed = true;
        return 0;
    case STUN_UNKNOWN_ATTRIBUTES:
    case STUN_REFLECTED_FROM:
    case STUN_CHANNEL_NUMBER: /* these are turn_msg's to read */
    case STUN_LIFETIME:
    case STUN_XOR_PEER_ADDRESS:
    case STUN_DATA:
    case STUN_XOR_RELAYED_ADDRESS:
    case STUN_REQUESTED_ADDRESS_FAMILY:
    case STUN_EVEN_PORT:
    case STUN_REQUESTED_TRANSPORT:
    case STUN_DONT_FRAGMENT:
    case STUN_PASSWORD_ALGORITHM:
    case STUN_USERHASH:
    case STUN_RESERVATION_TOKEN:
    case STUN_CONNECTION_ID:
        return 0;
    default:
        if (attribute->type < COMPREHENSION_OPTIONAL && out->unknown == 0)
            out->unknown = attribute->type;
        return 0;
    }
}

static void prefer(struct stun_endpoint *new, const struct stun_endpoint *old) {
    if (new->ip.family == 0)
        *new = *old;
}

size_t stun_msg_length(const uint8_t header[STUN_HEADER_SIZE]) {
    uint16_t length = get_u16(header + 2);
    if (header[0] > 0x3F || length % 4 != 0 || get_u32(header + 4) != MAGIC_COOKIE)
        return 0;
    return STUN_HEADER_SIZE + (size_t)length;
}

/* Whole messages have lengths that are multiples of four: where one attribute ends before the end,
 * four bytes are left for the next one's type and length. */
bool stun_msg_next(const uint8_t *bytes, size_t length, struct stun_attribute *attribute) {
    const uint8_t *at =
        attribute->value ? attribute->value + padded(attribute->length) : bytes + STUN_HEADER_SIZE;
    if (at == bytes + length)
        return false;
    *attribute = (struct stun_attribute){get_u16(at), at + ATTRIBUTE_HEADER, get_u16(at + 2)};
    return true;
}

int stun_msg_parse(const uint8_t *bytes, size_t length, struct stun_msg *out) {
    *out = (struct stun_msg){0};
    if (length < STUN_HEADER_SIZE || stun_msg_length(bytes) != length)
        return ERR_EFORMAT;
    uint16_t type = get_u16(bytes);
    out->class = (enum stun_class)((type >> 4 & 1) | (type >> 7 & 2));
    out->method = (uint16_t)((type & 0x000F) | (type >> 1 & 0x0070) | (type >> 2 & 0x0F80));
    memcpy(out->id, bytes + 8, STUN_ID_SIZE);
    struct reader reader = {.message = bytes, .out = out};
    for (struct stun_attribute attribute = {0}; stun_msg_next(bytes, length, &attribute);) {
        if (attribute.length > (size_t)(bytes + length - attribute.value))
            return ERR_EFORMAT;
        int status = read_attribute(&reader, &attribute);
        if (status != 0)
            return status;
    }
    prefer(&out->mapped, &reader.old_mapped);
    prefer(&out->origin, &reader.old_origin);
    prefer(&out->other, &reader.old_other);
    if (out->other.port == 0 || ip_kind(&out->other.ip) == IP_UNSPECIFIED)
        out->other = (struct stun_endpoint){0};
    return 0;
}
