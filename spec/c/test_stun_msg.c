/* STUN messages: those of RFC 5769, section 2, our own, and all that is none. */
#include "core/bytes.h"
#include "core/err.h"
#include "core/stun_msg.h"
#include "spec/c/check.h"

#include <stdint.h>
#include <stdlib.h>

#define ID "b7e7a701bc34d686fa87dfae"
#define HEADER(type, length) type length "2112a442" ID

struct bytes {
    uint8_t at[256];
    size_t length;
};

static struct bytes hex(const char *text) {
    struct bytes bytes = {.length = strlen(text) / 2};
    CHECK(bytes.length <= sizeof bytes.at);
    CHECK(hex_decode(text, 2 * bytes.length, bytes.at, bytes.length));
    return bytes;
}

/* RFC 5769, 2.1: SOFTWARE, PRIORITY, ICE-CONTROLLED, USERNAME, MESSAGE-INTEGRITY, FINGERPRINT */
static const char request[] =
    HEADER("0001", "0058") "802200105354554e207465737420636c69656e74"
                           "002400046e0001ff"
                           "80290008932ff9b151263b36"
                           "000600096576746a3a68367659202020"
                           "000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2"
                           "80280004e57a3bcf";
/* 2.2: SOFTWARE, XOR-MAPPED-ADDRESS, MESSAGE-INTEGRITY, FINGERPRINT */
static const char answer_v4[] =
    HEADER("0101", "003c") "8022000b7465737420766563746f7220"
                           "002000080001a147e112a643"
                           "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d7"
                           "80280004c07d4c96";
/* 2.3 */
static const char answer_v6[] =
    HEADER("0101", "0048") "8022000b7465737420766563746f7220"
                           "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9"
                           "00080014a382954e4be67bf11784c97c8292c275bfe3ed41"
                           "80280004c8fb0b4c";
static const char password[] = "VOkJxbRl1RmTxUk/WvJxBt"; /* of these three */

/* 2.4: USERNAME, NONCE, REALM, MESSAGE-INTEGRITY, with a long-term key */
static const char long_term[] = "000100602112a44278ad3433c6ad72c029da412e"
                                "00060012e3839ee38388e383aae38383e382afe382b90000"
                                "0015001c662f2f3439396b39353464364f4c33346f4c394653547679363473"
                                "41"
                                "0014000b6578616d706c652e6f726700"
                                "00080014f67024656dd64a3e02b8e0712e85c9a28ca89666";
static const char user[] =
    "\xe3\x83\x9e\xe3\x83\x88\xe3\x83\xaa\xe3\x83\x83\xe3\x82\xaf\xe3\x82\xb9";
static const char realm[] = "example.org", nonce[] = "f//499k954d6OL34oL9FSTvy64sA";

static int parse(const char *text, struct stun_msg *out) {
    static struct bytes bytes; /* texts of the message point into it */
    bytes = hex(text);
    return stun_msg_parse(bytes.at, bytes.length, out);
}

static int parse_status(const char *text) {
    struct stun_msg msg;
    return parse(text, &msg);
}

static void check_endpoint(const struct stun_endpoint *endpoint, const char *ip, int port) {
    char text[IP_TEXT_SIZE];
    ip_format(&endpoint->ip, text);
    CHECK_TEXT(text, ip);
    CHECK_EQ(endpoint->port, port);
}

static void check_text(struct stun_text got, const char *wanted) {
    CHECK(got.text && got.length == strlen(wanted) && memcmp(got.text, wanted, got.length) == 0);
}

static struct stun_endpoint endpoint(const char *text, uint16_t port) {
    struct stun_endpoint made = {.port = port};
    CHECK_EQ(ip_parse(text, strlen(text), &made.ip), 0);
    return made;
}

/* --- RFC 5769 ------------------------------------------------------------------------------ */

static void check_answer(const char *text, const char *ip) {
    struct stun_msg msg;
    struct bytes id = hex(ID);
    CHECK_EQ(parse(text, &msg), 0);
    CHECK_EQ(msg.class, STUN_SUCCESS);
    CHECK_EQ(msg.method, STUN_BINDING);
    CHECK(memcmp(msg.id, id.at, STUN_ID_SIZE) == 0);
    check_endpoint(&msg.mapped, ip, 32853);
    check_text(msg.software, "test vector");
    CHECK(msg.fingerprint);
    CHECK_EQ(msg.unknown, 0);
}

static void the_rfcs_answers_are_read(void) {
    check_answer(answer_v4, "192.0.2.1");
    check_answer(answer_v6, "2001:db8:1234:5678:11:2233:4455:6677");
}

static void the_rfcs_requests_are_read(void) {
    struct stun_msg msg;
    CHECK_EQ(parse(request, &msg), 0);
    CHECK_EQ(msg.class, STUN_REQUEST);
    CHECK_EQ(msg.unknown, 0x24); /* PRIORITY is ICE's */
    CHECK_EQ(msg.mapped.ip.family, 0);
    check_text(msg.software, "STUN test client");
    check_text(msg.username, "evtj:h6vY");
    CHECK(msg.fingerprint);
    CHECK_EQ(parse(long_term, &msg), 0);
    check_text(msg.username, user);
    check_text(msg.realm, realm);
    check_text(msg.nonce, nonce);
    CHECK(!msg.fingerprint);
}

static void check_integrity(const char *text, const void *key, size_t key_length) {
    struct stun_msg msg;
    struct bytes bytes = hex(text);
    CHECK_EQ(stun_msg_parse(bytes.at, bytes.length, &msg), 0);
    CHECK(stun_msg_is_by(bytes.at, &msg, key, key_length));
    CHECK(!stun_msg_is_by(bytes.at, &msg, key, key_length - 1));
    bytes.at[25] ^= 1;
    CHECK(!stun_msg_is_by(bytes.at, &msg, key, key_length));
}

static void the_rfcs_integrity_holds(void) {
    uint8_t key[STUN_KEY_SIZE];
    check_integrity(request, password, strlen(password));
    check_integrity(answer_v4, password, strlen(password));
    check_integrity(answer_v6, password, strlen(password));
    stun_key(user, realm, "TheMatrIX", key); /* as SASLprep leaves the RFC's */
    check_integrity(long_term, key, sizeof key);
}

/* 2.4 pads with zeros, as we do; 2.2 does with spaces, which the fingerprint is made over. */
static void the_rfcs_request_is_written(void) {
    struct bytes wanted = hex(long_term);
    uint8_t bytes[256], key[STUN_KEY_SIZE];
    struct stun_writer writer;
    stun_key(user, realm, "TheMatrIX", key);
    stun_write(&writer, bytes, sizeof bytes, STUN_REQUEST, STUN_BINDING, wanted.at + 8);
    stun_write_bytes(&writer, STUN_USERNAME, user, strlen(user));
    stun_write_bytes(&writer, STUN_NONCE, nonce, strlen(nonce));
    stun_write_bytes(&writer, STUN_REALM, realm, strlen(realm));
    stun_write_integrity(&writer, key, sizeof key);
    CHECK_EQ(writer.length, wanted.length);
    CHECK(memcmp(bytes, wanted.at, wanted.length) == 0);
}

/* --- ours ---------------------------------------------------------------------------------- */

static void a_query_is_a_header_and_a_change(void) {
    uint8_t bytes[STUN_QUERY_SIZE];
    struct stun_msg msg;
    struct bytes id = hex(ID);
    CHECK_EQ(stun_msg_query(id.at, STUN_CHANGE_NONE, bytes), STUN_HEADER_SIZE);
    CHECK_EQ(stun_msg_parse(bytes, STUN_HEADER_SIZE, &msg), 0);
    CHECK_EQ(msg.class, STUN_REQUEST);
    CHECK_EQ(msg.method, STUN_BINDING);
    CHECK_EQ(msg.change, STUN_CHANGE_NONE);
    CHECK(memcmp(msg.id, id.at, STUN_ID_SIZE) == 0);
    CHECK_EQ(stun_msg_query(id.at, STUN_CHANGE_BOTH, bytes), STUN_QUERY_SIZE);
    struct bytes wanted = hex(HEADER("0001", "0008") "0003000400000006");
    CHECK(memcmp(bytes, wanted.at, sizeof bytes) == 0);
    CHECK_EQ(stun_msg_parse(bytes, sizeof bytes, &msg), 0);
    CHECK_EQ(msg.change, STUN_CHANGE_BOTH);
    CHECK_EQ(parse(HEADER("0001", "0008") "0003000400000002", &msg), 0);
    CHECK_EQ(msg.change, STUN_CHANGE_PORT);
    CHECK_EQ(parse(HEADER("0001", "0008") "0003000400000004", &msg), 0);
    CHECK_EQ(msg.change, STUN_CHANGE_ADDRESS);
}

static void what_is_written_is_read(void) {
    static const char *const addresses[] = {"192.0.2.1", "2001:db8::7"};
    for (size_t i = 0; i < 2; i++)
        for (unsigned class = STUN_REQUEST; class <= STUN_ERROR; class ++)
            for (uint16_t method = 0; method <= 0xFFF; method = (uint16_t)(method * 2 + 1)) {
                uint8_t bytes[256];
                struct bytes id = hex(ID);
                struct stun_msg msg;
                struct stun_writer writer;
                struct stun_endpoint mapped = endpoint(addresses[i], 1234),
                                     other = endpoint("198.51.100.9", 3479);
                stun_write(&writer, bytes, sizeof bytes, (enum stun_class) class, method, id.at);
                stun_write_endpoint(&writer, STUN_XOR_MAPPED_ADDRESS, &mapped);
                stun_write_endpoint(&writer, STUN_OTHER_ADDRESS, &other);
                stun_write_error(&writer, 420, "Unknown Attribute");
                stun_write_bytes(&writer, STUN_SOFTWARE, "", 0);
                stun_write_integrity(&writer, "secret", 6);
                stun_write_fingerprint(&writer);
                CHECK_EQ(stun_msg_length(bytes), writer.length);
                CHECK_EQ(stun_msg_parse(bytes, writer.length, &msg), 0);
                CHECK_EQ(msg.class, class);
                CHECK_EQ(msg.method, method);
                check_endpoint(&msg.mapped, addresses[i], 1234);
                check_endpoint(&msg.other, "198.51.100.9", 3479);
                CHECK_EQ(msg.error, 420);
                check_text(msg.software, "");
                CHECK(msg.fingerprint);
                CHECK(stun_msg_is_by(bytes, &msg, "secret", 6));
            }
}

static void what_does_not_fit_is_not_written(void) {
    uint8_t whole[256];
    struct bytes id = hex(ID);
    size_t length = 0;
    for (size_t size = sizeof whole; size-- > 0;) {
        uint8_t *exact = malloc(size ? size : 1); /* so that a sanitizer sees what is too much */
        struct stun_writer writer;
        struct stun_endpoint there = endpoint("2001:db8::7", 1);
        stun_write(&writer, exact, size, STUN_SUCCESS, STUN_BINDING, id.at);
        stun_write_endpoint(&writer, STUN_XOR_MAPPED_ADDRESS, &there);
        stun_write_error(&writer, 300, "elsewhere");
        stun_write_integrity(&writer, "x", 1);
        stun_write_fingerprint(&writer);
        length = length ? length : writer.length;
        CHECK_EQ(writer.length, size >= length ? length : 0);
        free(exact);
    }
    CHECK_EQ(length, 20 + 24 + 20 + 24 + 8);
}

static void attributes_come_one_by_one(void) {
    struct bytes bytes = hex(answer_v4);
    struct stun_attribute attribute = {0};
    static const uint16_t types[] = {STUN_SOFTWARE, STUN_XOR_MAPPED_ADDRESS, STUN_MESSAGE_INTEGRITY,
                                     STUN_FINGERPRINT};
    size_t count = 0;
    while (stun_msg_next(bytes.at, bytes.length, &attribute))
        CHECK_EQ(attribute.type, types[count++]);
    CHECK_EQ(count, 4);
    struct bytes bare = hex(HEADER("0001", "0000"));
    attribute = (struct stun_attribute){0};
    CHECK(!stun_msg_next(bare.at, bare.length, &attribute));
}

/* --- addresses ----------------------------------------------------------------------------- */

static void old_and_new_addresses(void) {
    struct stun_msg msg;
    CHECK_EQ(parse(HEADER("0101", "0018") "0001000800011234c0000207"
                                          "002000080001a147e112a643",
                   &msg),
             0);
    check_endpoint(&msg.mapped, "192.0.2.1", 32853); /* the hidden form is preferred */
    CHECK_EQ(parse(HEADER("0101", "000c") "0001000800011234c0000207", &msg), 0);
    check_endpoint(&msg.mapped, "192.0.2.7", 0x1234);
    CHECK_EQ(parse(HEADER("0101", "0018") "0001000800011234c0000207"
                                          "0001000800011235c0000208",
                   &msg),
             0);
    check_endpoint(&msg.mapped, "192.0.2.7", 0x1234); /* of two the first */
}

static void where_else_the_server_answers(void) {
    struct stun_msg msg;
    CHECK_EQ(parse(HEADER("0101", "0018") "0004000800010d96c0000207"
                                          "0005000800010d97c0000208",
                   &msg),
             0);
    check_endpoint(&msg.origin, "192.0.2.7", 3478);
    check_endpoint(&msg.other, "192.0.2.8", 3479);
    CHECK_EQ(parse(HEADER("0101", "0018") "0005000800010d97c0000208"
                                          "802c000800010d98c0000209",
                   &msg),
             0);
    check_endpoint(&msg.other, "192.0.2.9", 3480);
    CHECK_EQ(parse(HEADER("0101", "0018") "802b000800010d96c0000207"
                                          "0005000800010d9700000000",
                   &msg),
             0);
    check_endpoint(&msg.origin, "192.0.2.7", 3478);
    CHECK_EQ(msg.other.ip.family, 0); /* what servers without another address say */
}

/* --- what is no message -------------------------------------------------------------------- */

static void every_cut_and_every_flip_is_noticed(void) {
    struct stun_msg msg;
    struct bytes whole = hex(answer_v4);
    for (size_t n = 0; n < whole.length; n++) {
        uint8_t *exact = malloc(n ? n : 1); /* so that a sanitizer sees what is read behind it */
        memcpy(exact, whole.at, n);
        CHECK_EQ(stun_msg_parse(exact, n, &msg), ERR_EFORMAT);
        free(exact);
    }
    for (size_t bit = 0; bit < 8 * whole.length; bit++) { /* the fingerprint covers them all */
        struct bytes bytes = whole;
        bytes.at[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (stun_msg_parse(bytes.at, bytes.length, &msg) == 0) {
            CHECK(!msg.fingerprint); /* only when the flip made it another attribute */
            CHECK(bit >= 8 * (whole.length - 8) ||
                  !stun_msg_is_by(bytes.at, &msg, password, strlen(password)));
        }
    }
}

/* Each attribute that we read, at each length that fits: read within its bounds, and accepted only
 * at lengths that it may have. */
static void attributes_of_every_length(void) {
    static const struct {
        uint16_t type;
        uint8_t lengths[2]; /* 0, 0 when any is good */
    } cases[] = {
        {STUN_MAPPED_ADDRESS, {8, 8}},
        {STUN_CHANGE_REQUEST, {4, 4}},
        {STUN_SOURCE_ADDRESS, {8, 8}},
        {STUN_CHANGED_ADDRESS, {8, 8}},
        {STUN_USERNAME, {0, 0}},
        {STUN_MESSAGE_INTEGRITY, {20, 20}},
        {STUN_ERROR_CODE, {4, 255}},
        {STUN_UNKNOWN_ATTRIBUTES, {0, 0}},
        {STUN_REALM, {0, 0}},
        {STUN_NONCE, {0, 0}},
        {STUN_XOR_MAPPED_ADDRESS, {8, 8}},
        {STUN_SOFTWARE, {0, 0}},
        {STUN_FINGERPRINT, {255, 254}},
        {STUN_RESPONSE_ORIGIN, {8, 8}},
        {STUN_OTHER_ADDRESS, {8, 8}},
        {0x7777, {0, 0}},
    };
    struct bytes id = hex(ID);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t length = 0; length < 200; length++) {
            size_t size = 24 + ((length + 3) & ~(size_t)3);
            uint8_t *exact = malloc(size);
            uint8_t value[200] = {0, 1, 4, 20}; /* an IPv4 address, an error */
            struct stun_writer writer;
            struct stun_msg msg;
            stun_write(&writer, exact, size, STUN_SUCCESS, STUN_BINDING, id.at);
            stun_write_bytes(&writer, cases[i].type, value, length);
            CHECK_EQ(writer.length, size);
            bool any = cases[i].lengths[0] == 0 && cases[i].lengths[1] == 0;
            bool good = any || (length >= cases[i].lengths[0] && length <= cases[i].lengths[1]);
            CHECK_EQ(stun_msg_parse(exact, size, &msg), good ? 0 : ERR_EFORMAT);
            exact[22] = 0x7F; /* longer than the message */
            CHECK_EQ(stun_msg_parse(exact, size, &msg), ERR_EFORMAT);
            free(exact);
        }
}

static void errors_are_read(void) {
    struct stun_msg msg;
    CHECK_EQ(parse(HEADER("0111", "000c") "00090006000004016e6f0000", &msg), 0);
    CHECK_EQ(msg.class, STUN_ERROR);
    CHECK_EQ(msg.error, 401);
    CHECK_EQ(parse_status(HEADER("0111", "0008") "0009000400000201"), ERR_EFORMAT);
    CHECK_EQ(parse_status(HEADER("0111", "0008") "0009000400000701"), ERR_EFORMAT);
    CHECK_EQ(parse_status(HEADER("0111", "0008") "0009000400000464"), ERR_EFORMAT);
}

static void headers_must_be_right(void) {
    CHECK_EQ(parse_status(HEADER("0101", "0000")), 0);
    CHECK_EQ(parse_status(HEADER("0101", "0004")), ERR_EFORMAT);
    CHECK_EQ(parse_status(HEADER("0101", "0000") "00000000"), ERR_EFORMAT);
    CHECK_EQ(parse_status(HEADER("0101", "0002") "0000"), ERR_EFORMAT);
    CHECK_EQ(parse_status(HEADER("8101", "0000")), ERR_EFORMAT); /* the first two bits are 0 */
    CHECK_EQ(parse_status(HEADER("4101", "0000")), ERR_EFORMAT);
    CHECK_EQ(parse_status("010100002112a443" ID), ERR_EFORMAT); /* the cookie */
    CHECK_EQ(stun_msg_length(hex(HEADER("0101", "fffc")).at), 20 + 0xfffc);
    CHECK_EQ(stun_msg_length(hex(HEADER("0101", "fffe")).at), 0);
}

static void families_must_be_known(void) {
    CHECK_EQ(parse_status(HEADER("0101", "000c") "002000080003a147e112a643"), ERR_EFORMAT);
    CHECK_EQ(parse_status(HEADER("0101", "000c") "002000080002a147e112a643"), ERR_EFORMAT);
    CHECK_EQ(parse_status(HEADER("0101", "000c") "802c000800000000e112a643"), ERR_EFORMAT);
}

static void nothing_follows_a_fingerprint(void) {
    struct bytes id = hex(ID);
    uint8_t bytes[64];
    struct stun_writer writer;
    struct stun_msg msg;
    stun_write(&writer, bytes, sizeof bytes, STUN_SUCCESS, STUN_BINDING, id.at);
    stun_write_fingerprint(&writer);
    CHECK_EQ(stun_msg_parse(bytes, writer.length, &msg), 0);
    stun_write_bytes(&writer, STUN_SOFTWARE, "", 0);
    CHECK_EQ(stun_msg_parse(bytes, writer.length, &msg), ERR_EFORMAT);
}

static void only_a_fingerprint_follows_integrity(void) {
    struct bytes id = hex(ID);
    uint8_t bytes[64];
    struct stun_writer writer;
    struct stun_msg msg;
    struct stun_endpoint forged = endpoint("192.0.2.66", 66);
    stun_write(&writer, bytes, sizeof bytes, STUN_SUCCESS, STUN_BINDING, id.at);
    stun_write_integrity(&writer, "x", 1);
    stun_write_endpoint(&writer, STUN_MAPPED_ADDRESS, &forged);
    CHECK_EQ(stun_msg_parse(bytes, writer.length, &msg), 0);
    CHECK_EQ(msg.mapped.ip.family, 0);
    CHECK(stun_msg_is_by(bytes, &msg, "x", 1));
}

static void what_must_be_understood_is_named(void) {
    struct stun_msg msg;
    CHECK_EQ(parse(HEADER("0101", "0004") "12340000", &msg), 0);
    CHECK_EQ(msg.unknown, 0x1234);
    CHECK_EQ(parse(HEADER("0101", "0004") "92340000", &msg), 0);
    CHECK_EQ(msg.unknown, 0);
}

int main(void) {
    RUN(the_rfcs_answers_are_read);
    RUN(the_rfcs_requests_are_read);
    RUN(the_rfcs_integrity_holds);
    RUN(the_rfcs_request_is_written);
    RUN(a_query_is_a_header_and_a_change);
    RUN(what_is_written_is_read);
    RUN(what_does_not_fit_is_not_written);
    RUN(attributes_come_one_by_one);
    RUN(old_and_new_addresses);
    RUN(where_else_the_server_answers);
    RUN(every_cut_and_every_flip_is_noticed);
    RUN(attributes_of_every_length);
    RUN(errors_are_read);
    RUN(headers_must_be_right);
    RUN(families_must_be_known);
    RUN(nothing_follows_a_fingerprint);
    RUN(only_a_fingerprint_follows_integrity);
    RUN(what_must_be_understood_is_named);
    return check_report();
}
