/* The messages are those of RFC 5769, section 2. */
#include "core/err.h"
#include "core/stun_msg.h"
#include "spec/c/check.h"

#include <stdint.h>
#include <stdlib.h>

#define HEADER(type0, type1, length)                                                               \
    type0, type1, 0, length, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6,     \
        0x86, 0xfa, 0x87, 0xdf, 0xae

static const uint8_t id[STUN_ID_SIZE] = {0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34,
                                         0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae};

static const uint8_t request[] = {HEADER(0, 1, 0x58),
                                  0x80,
                                  0x22,
                                  0,
                                  0x10,
                                  0x53,
                                  0x54,
                                  0x55,
                                  0x4e,
                                  0x20,
                                  0x74,
                                  0x65,
                                  0x73,
                                  0x74,
                                  0x20,
                                  0x63,
                                  0x6c,
                                  0x69,
                                  0x65,
                                  0x6e,
                                  0x74,
                                  0,
                                  0x24,
                                  0,
                                  4,
                                  0x6e,
                                  0,
                                  1,
                                  0xff,
                                  0x80,
                                  0x29,
                                  0,
                                  8,
                                  0x93,
                                  0x2f,
                                  0xf9,
                                  0xb1,
                                  0x51,
                                  0x26,
                                  0x3b,
                                  0x36,
                                  0,
                                  6,
                                  0,
                                  9,
                                  0x65,
                                  0x76,
                                  0x74,
                                  0x6a,
                                  0x3a,
                                  0x68,
                                  0x36,
                                  0x76,
                                  0x59,
                                  0x20,
                                  0x20,
                                  0x20,
                                  0,
                                  8,
                                  0,
                                  0x14,
                                  0x9a,
                                  0xea,
                                  0xa7,
                                  0x0c,
                                  0xbf,
                                  0xd8,
                                  0xcb,
                                  0x56,
                                  0x78,
                                  0x1e,
                                  0xf2,
                                  0xb5,
                                  0xb2,
                                  0xd3,
                                  0xf2,
                                  0x49,
                                  0xc1,
                                  0xb5,
                                  0x71,
                                  0xa2,
                                  0x80,
                                  0x28,
                                  0,
                                  4,
                                  0xe5,
                                  0x7a,
                                  0x3b,
                                  0xcf};

static const uint8_t answer_v4[] = {HEADER(1, 1, 0x3c),
                                    0x80,
                                    0x22,
                                    0,
                                    0x0b,
                                    0x74,
                                    0x65,
                                    0x73,
                                    0x74,
                                    0x20,
                                    0x76,
                                    0x65,
                                    0x63,
                                    0x74,
                                    0x6f,
                                    0x72,
                                    0x20,
                                    0,
                                    0x20,
                                    0,
                                    8,
                                    0,
                                    1,
                                    0xa1,
                                    0x47,
                                    0xe1,
                                    0x12,
                                    0xa6,
                                    0x43,
                                    0,
                                    8,
                                    0,
                                    0x14,
                                    0x2b,
                                    0x91,
                                    0xf5,
                                    0x99,
                                    0xfd,
                                    0x9e,
                                    0x90,
                                    0xc3,
                                    0x8c,
                                    0x74,
                                    0x89,
                                    0xf9,
                                    0x2a,
                                    0xf9,
                                    0xba,
                                    0x53,
                                    0xf0,
                                    0x6b,
                                    0xe7,
                                    0xd7,
                                    0x80,
                                    0x28,
                                    0,
                                    4,
                                    0xc0,
                                    0x7d,
                                    0x4c,
                                    0x96};

static const uint8_t answer_v6[] = {HEADER(1, 1, 0x48),
                                    0x80,
                                    0x22,
                                    0,
                                    0x0b,
                                    0x74,
                                    0x65,
                                    0x73,
                                    0x74,
                                    0x20,
                                    0x76,
                                    0x65,
                                    0x63,
                                    0x74,
                                    0x6f,
                                    0x72,
                                    0x20,
                                    0,
                                    0x20,
                                    0,
                                    0x14,
                                    0,
                                    2,
                                    0xa1,
                                    0x47,
                                    0x01,
                                    0x13,
                                    0xa9,
                                    0xfa,
                                    0xa5,
                                    0xd3,
                                    0xf1,
                                    0x79,
                                    0xbc,
                                    0x25,
                                    0xf4,
                                    0xb5,
                                    0xbe,
                                    0xd2,
                                    0xb9,
                                    0xd9,
                                    0,
                                    8,
                                    0,
                                    0x14,
                                    0xa3,
                                    0x82,
                                    0x95,
                                    0x4e,
                                    0x4b,
                                    0xe6,
                                    0x7b,
                                    0xf1,
                                    0x17,
                                    0x84,
                                    0xc9,
                                    0x7c,
                                    0x82,
                                    0x92,
                                    0xc2,
                                    0x75,
                                    0xbf,
                                    0xe3,
                                    0xed,
                                    0x41,
                                    0x80,
                                    0x28,
                                    0,
                                    4,
                                    0xc8,
                                    0xfb,
                                    0x0b,
                                    0x4c};

static void check_mapped(const uint8_t *bytes, size_t length, const char *ip, int port) {
    struct stun_msg message;
    char text[IP_TEXT_SIZE];
    CHECK_EQ(stun_msg_parse(bytes, length, &message), 0);
    CHECK_EQ(message.class, STUN_SUCCESS);
    CHECK_EQ(message.method, 1);
    CHECK(memcmp(message.id, id, sizeof id) == 0);
    ip_format(&message.mapped, text);
    CHECK_TEXT(text, ip);
    CHECK_EQ(message.mapped_port, port);
}

static void the_rfcs_answers_are_read(void) {
    struct stun_msg message;
    check_mapped(answer_v4, sizeof answer_v4, "192.0.2.1", 32853);
    check_mapped(answer_v6, sizeof answer_v6, "2001:db8:1234:5678:11:2233:4455:6677", 32853);
    CHECK_EQ(stun_msg_parse(answer_v4, sizeof answer_v4, &message), 0);
    CHECK(message.fingerprint);
    CHECK_EQ(message.unknown, 0);
}

static void the_rfcs_request_is_read(void) {
    struct stun_msg message;
    CHECK_EQ(stun_msg_parse(request, sizeof request, &message), 0);
    CHECK_EQ(message.class, STUN_REQUEST);
    CHECK_EQ(message.unknown, 0x24); /* PRIORITY is ICE's */
    CHECK_EQ(message.mapped.family, 0);
}

static void a_request_is_a_header(void) {
    uint8_t bytes[STUN_HEADER_SIZE];
    struct stun_msg message;
    CHECK_EQ(stun_msg_request(id, bytes), STUN_HEADER_SIZE);
    CHECK_EQ(stun_msg_parse(bytes, sizeof bytes, &message), 0);
    CHECK_EQ(message.class, STUN_REQUEST);
    CHECK_EQ(message.method, 1);
    CHECK(memcmp(message.id, id, sizeof id) == 0);
}

static void every_cut_and_every_flip_is_noticed(void) {
    struct stun_msg message;
    uint8_t bytes[sizeof answer_v4];
    for (size_t n = 0; n < sizeof answer_v4; n++) {
        uint8_t *exact = malloc(n ? n : 1); /* so that a sanitizer sees what is read behind it */
        memcpy(exact, answer_v4, n);
        CHECK_EQ(stun_msg_parse(exact, n, &message), ERR_EFORMAT);
        free(exact);
    }
    for (size_t bit = 0; bit < 8 * sizeof bytes; bit++) { /* the fingerprint covers them all */
        memcpy(bytes, answer_v4, sizeof bytes);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (stun_msg_parse(bytes, sizeof bytes, &message) == 0)
            CHECK(!message.fingerprint); /* only when the flip made it another attribute */
    }
}

static void old_and_new_addresses(void) {
    static const uint8_t both[] = {HEADER(1, 1, 24),
                                   0,
                                   1,
                                   0,
                                   8,
                                   0,
                                   1,
                                   0x12,
                                   0x34,
                                   192,
                                   0,
                                   2,
                                   7,
                                   0,
                                   0x20,
                                   0,
                                   8,
                                   0,
                                   1,
                                   0xa1,
                                   0x47,
                                   0xe1,
                                   0x12,
                                   0xa6,
                                   0x43};
    static const uint8_t old[] = {HEADER(1, 1, 12), 0, 1, 0, 8, 0, 1, 0x12, 0x34, 192, 0, 2, 7};
    check_mapped(both, sizeof both, "192.0.2.1", 32853); /* the hidden form is preferred */
    check_mapped(old, sizeof old, "192.0.2.7", 0x1234);
}

static void errors_are_read(void) {
    uint8_t error[] = {HEADER(1, 0x11, 12), 0, 9, 0, 6, 0, 0, 4, 1, 'n', 'o', 0, 0};
    struct stun_msg message;
    CHECK_EQ(stun_msg_parse(error, sizeof error, &message), 0);
    CHECK_EQ(message.class, STUN_ERROR);
    CHECK_EQ(message.error, 401);
    error[26] = 2;
    CHECK_EQ(stun_msg_parse(error, sizeof error, &message), ERR_EFORMAT);
    error[26] = 4;
    error[27] = 100;
    CHECK_EQ(stun_msg_parse(error, sizeof error, &message), ERR_EFORMAT);
}

static void lengths_must_fit(void) {
    struct stun_msg message;
    uint8_t bytes[] = {HEADER(1, 1, 12), 0, 0x20, 0, 8, 0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43};
    CHECK_EQ(stun_msg_parse(bytes, sizeof bytes, &message), 0);
    for (int length = 0; length < 256; length++) {
        bytes[23] = (uint8_t)length;
        CHECK_EQ(stun_msg_parse(bytes, sizeof bytes, &message), length == 8 ? 0 : ERR_EFORMAT);
    }
    bytes[23] = 8;
    bytes[25] = 2; /* says IPv6, and is too short for it */
    CHECK_EQ(stun_msg_parse(bytes, sizeof bytes, &message), ERR_EFORMAT);
    bytes[25] = 3;
    CHECK_EQ(stun_msg_parse(bytes, sizeof bytes, &message), ERR_EFORMAT);
    bytes[25] = 1;
    bytes[3] = 8;
    CHECK_EQ(stun_msg_parse(bytes, sizeof bytes, &message), ERR_EFORMAT);
    bytes[3] = 12;
    bytes[0] |= 0x80; /* the first two bits are 0 */
    CHECK_EQ(stun_msg_parse(bytes, sizeof bytes, &message), ERR_EFORMAT);
    bytes[0] = 1;
    bytes[4] ^= 1; /* the cookie */
    CHECK_EQ(stun_msg_parse(bytes, sizeof bytes, &message), ERR_EFORMAT);
}

static void what_must_be_understood_is_named(void) {
    static const uint8_t must[] = {HEADER(1, 1, 4), 0x12, 0x34, 0, 0};
    static const uint8_t may[] = {HEADER(1, 1, 4), 0x92, 0x34, 0, 0};
    struct stun_msg message;
    CHECK_EQ(stun_msg_parse(must, sizeof must, &message), 0);
    CHECK_EQ(message.unknown, 0x1234);
    CHECK_EQ(stun_msg_parse(may, sizeof may, &message), 0);
    CHECK_EQ(message.unknown, 0);
}

int main(void) {
    RUN(the_rfcs_answers_are_read);
    RUN(the_rfcs_request_is_read);
    RUN(a_request_is_a_header);
    RUN(every_cut_and_every_flip_is_noticed);
    RUN(old_and_new_addresses);
    RUN(errors_are_read);
    RUN(lengths_must_fit);
    RUN(what_must_be_understood_is_named);
    return check_report();
}
