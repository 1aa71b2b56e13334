/* TURN messages: those of another implementation and of coturn (protocol/vectors/turn_stun), our
 * own about TCP, and all that is none. */
#include "core/bytes.h"
#include "core/err.h"
#include "core/turn_msg.h"
#include "spec/c/check.h"

#include <stdlib.h>

#define ID "000102030405060708090a0b"
#define HEADER(type, length) type length "2112a442" ID
#define LOGIN                                                                                      \
    "0006000574757365720000000014000f766563746f72732e6578616d706c6500"                             \
    "001500103031323334353637383961626364656600080014"

struct bytes {
    uint8_t at[512];
    size_t length;
};

static struct bytes hex(const char *text) {
    struct bytes bytes = {.length = strlen(text) / 2};
    CHECK(bytes.length <= sizeof bytes.at);
    CHECK(hex_decode(text, 2 * bytes.length, bytes.at, bytes.length));
    return bytes;
}

static struct stun_endpoint endpoint(const char *ip, uint16_t port) {
    struct stun_endpoint endpoint = {.port = port};
    CHECK_EQ(ip_parse(ip, strlen(ip), &endpoint.ip), 0);
    return endpoint;
}

static void check_endpoint(const struct stun_endpoint *got, const char *ip, uint16_t port) {
    struct stun_endpoint wanted = endpoint(ip, port);
    CHECK(ip_equal(&got->ip, &wanted.ip));
    CHECK_EQ(got->port, port);
}

static const uint8_t id[STUN_ID_SIZE] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};

/* As after a 401 with this realm and nonce. */
static struct turn_login known(void) {
    struct turn_login login;
    struct stun_msg answer = {
        .error = 401, .realm = {"vectors.example", 15}, .nonce = {"0123456789abcdef", 16}};
    CHECK_EQ(turn_login_init(&login, "tuser", "tpass"), 0);
    CHECK(turn_login_learn(&login, &answer));
    return login;
}

static void check_request(const struct turn_request *request, const struct turn_login *login,
                          const char *wanted) {
    uint8_t out[TURN_REQUEST_MAX];
    char text[2 * TURN_REQUEST_MAX + 1];
    hex_encode(out, turn_write(request, login, id, out), text);
    CHECK_TEXT(text, wanted);
}

/* --- requests ------------------------------------------------------------------------------ */

static void requests_are_those_of_another_implementation(void) {
    struct turn_login login = known();
    struct stun_endpoint peer = endpoint("26.88.128.9", 50777);
    struct turn_request request = {TURN_CREATE_PERMISSION, 0, 0, 0, &peer, 1};
    peer.ip = endpoint("198.41.0.9", 1).ip;
    peer.port = 0xe74b ^ 0x2112;
    check_request(&request, &login,
                  HEADER("0008", "0058") "001200080001e74be73ba44b" LOGIN
                                         "b2b704f0fea5c586adcee643d0636fde2b8b6018");
    peer = endpoint("2607:5300:60:80b0::1", 0xe74b ^ 0x2112);
    check_request(&request, &login,
                  HEADER("0008", "0064") "001200140002e74b0715f742006182b30405060708090a0a" LOGIN
                                         "39d748fbfcecd285894b15f3000cfd176428c12b");
    request = (struct turn_request){.method = TURN_REFRESH, .lifetime_s = 600};
    check_request(&request, &login,
                  HEADER("0004", "0054") "000d000400000258" LOGIN
                                         "4f525f569d217f75e8b53f816462b2717fb55663");
}

static void requests_are_about_tcp(void) {
    struct turn_login login;
    struct stun_endpoint peer = endpoint("192.0.2.1", 80);
    struct turn_request request = {.method = TURN_ALLOCATE, .family = 4};
    CHECK_EQ(turn_login_init(&login, "tuser", "tpass"), 0);
    check_request(&request, &login, HEADER("0003", "0008") "0019000406000000");
    check_request(&request, NULL, HEADER("0003", "0008") "0019000406000000");
    request.family = 6;
    check_request(&request, NULL, HEADER("0003", "0010") "00190004060000000017000402000000");
    request = (struct turn_request){.method = TURN_CONNECT, .peers = &peer, .peer_count = 1};
    check_request(&request, NULL, HEADER("000a", "000c") "0012000800012142e112a643");
    request = (struct turn_request){.method = TURN_CONNECTION_BIND, .connection = 0xdeadbeef};
    check_request(&request, NULL, HEADER("000b", "0008") "002a0004deadbeef");
}

static void requests_fit_or_are_none(void) {
    static struct stun_endpoint peers[TURN_PEERS_MAX + 1];
    static char long_user[TURN_USER_MAX + 2], long_password[TURN_TEXT_MAX + 2];
    static char realm[TURN_TEXT_MAX], nonce[TURN_TEXT_MAX];
    uint8_t out[TURN_REQUEST_MAX];
    struct turn_login login;
    struct turn_request request = {TURN_CREATE_PERMISSION, 0, 0, 0, peers, TURN_PEERS_MAX};
    for (size_t i = 0; i <= TURN_PEERS_MAX; i++)
        peers[i] = endpoint("2001:db8::1", 1);
    memset(long_user, 'u', TURN_USER_MAX + 1);
    memset(long_password, 'p', TURN_TEXT_MAX + 1);
    memset(realm, 'r', sizeof realm);
    memset(nonce, 'n', sizeof nonce);
    CHECK_EQ(turn_login_init(&login, long_user, "p"), UV_EINVAL);
    CHECK_EQ(turn_login_init(&login, "u", long_password), UV_EINVAL);
    CHECK_EQ(turn_login_init(&login, "", "p"), UV_EINVAL);
    long_user[TURN_USER_MAX] = long_password[TURN_TEXT_MAX] = '\0';
    CHECK_EQ(turn_login_init(&login, long_user, long_password), 0);
    CHECK(turn_login_learn(&login, &(struct stun_msg){.error = 401,
                                                      .realm = {realm, sizeof realm},
                                                      .nonce = {nonce, sizeof nonce}}));
    size_t length = turn_write(&request, &login, id, out);
    struct turn_msg back;
    CHECK(length > 0);
    CHECK_EQ(turn_msg_parse(out, length, &back), 0);
    CHECK_EQ(back.stun.realm.length, sizeof realm);
    CHECK(stun_msg_is_by(out, &back.stun, login.key, sizeof login.key));
    request.peer_count++;
    CHECK_EQ(turn_write(&request, &login, id, out), 0);
    request.method = TURN_CONNECTION_ATTEMPT;
    CHECK_EQ(turn_write(&request, &login, id, out), 0);
}

/* --- answers ------------------------------------------------------------------------------- */

static int parse(const char *text, struct turn_msg *out) {
    static struct bytes bytes; /* texts of the message point into it */
    bytes = hex(text);
    return turn_msg_parse(bytes.at, bytes.length, out);
}

static void coturns_answers_are_read(void) {
    static const char refusal[] = "011300542112a442295a66b09ae2707bd107f1780009001000000401556e6175"
                                  "74686f72697a6564001500106533"
                                  "37343231333034646161366265320014000f766563746f72732e6578616d706c"
                                  "650080220014436f7475726e2d34"
                                  "2e362e312027476f72737427";
    static const char success[] = "010300502112a44275330293660af537a5ddb58a001600080001beac291aa54b"
                                  "0020000800019abf291aa543000d"
                                  "00040000025880220014436f7475726e2d342e362e312027476f727374270008"
                                  "0014868cdc84cd7b322246afd87a"
                                  "afb9173fbdeb83d4";
    struct turn_login login;
    struct turn_msg msg;
    CHECK_EQ(turn_login_init(&login, "tuser", "tpass"), 0);
    CHECK_EQ(parse(refusal, &msg), 0);
    CHECK_EQ(msg.stun.error, 401);
    CHECK(!login.ready);
    CHECK(turn_login_learn(&login, &msg.stun));
    CHECK_TEXT(login.realm, "vectors.example");
    CHECK_EQ(login.nonce_length, 16);
    struct bytes bytes = hex(success);
    CHECK_EQ(turn_msg_parse(bytes.at, bytes.length, &msg), 0);
    CHECK_EQ(msg.stun.class, STUN_SUCCESS);
    CHECK_EQ(msg.stun.method, TURN_ALLOCATE);
    CHECK_EQ(msg.stun.unknown, 0);
    check_endpoint(&msg.relayed, "8.8.1.9", 0xbeac ^ 0x2112);
    check_endpoint(&msg.stun.mapped, "8.8.1.1", 48045);
    CHECK(msg.has_lifetime);
    CHECK_EQ(msg.lifetime_s, 600);
    CHECK(stun_msg_is_by(bytes.at, &msg.stun, login.key, sizeof login.key));
    CHECK_EQ(turn_login_init(&login, "tuser", "wrong"), 0);
    CHECK(turn_login_learn(
        &login,
        &(struct stun_msg){.error = 401, .realm = {"vectors.example", 15}, .nonce = {"n", 1}}));
    CHECK(!stun_msg_is_by(bytes.at, &msg.stun, login.key, sizeof login.key));
}

static void what_tcp_relays_say_is_read(void) {
    struct turn_msg msg;
    CHECK_EQ(parse(HEADER("001c", "0014") "002a00040000abcd"
                                          "0012000800012142e112a643",
                   &msg),
             0);
    CHECK_EQ(msg.stun.class, STUN_INDICATION);
    CHECK_EQ(msg.stun.method, TURN_CONNECTION_ATTEMPT);
    CHECK(msg.has_connection);
    CHECK_EQ(msg.connection, 0xabcd);
    check_endpoint(&msg.peer, "192.0.2.1", 80);
    CHECK_EQ(parse(HEADER("0113", "0018") "000900080000030054727920"
                                          "802300080001005a01020304",
                   &msg),
             0);
    CHECK_EQ(msg.stun.error, 300);
    check_endpoint(&msg.alternate, "1.2.3.4", 90); /* which is not hidden */
}

static void the_first_counts_and_none_after_the_signature(void) {
    struct turn_msg msg;
    CHECK_EQ(parse(HEADER("0104", "0010") "000d000400000001000d000400000002", &msg), 0);
    CHECK_EQ(msg.lifetime_s, 1);
    CHECK_EQ(parse(HEADER("0104", "0020") "00080014000000000000000000000000000000000000000"
                                          "0000d000400000002",
                   &msg),
             0);
    CHECK(!msg.has_lifetime);
    CHECK_EQ(parse(HEADER("0104", "0014") "001c00040000000000120001ff000000", &msg), ERR_EFORMAT);
}

static void bad_messages_are_refused(void) {
    static const char *const bad[] = {
        "",
        HEADER("0104", "0008") "000d000400000",
        HEADER("0104", "0008") "000d000300000000",
        HEADER("0104", "0004") "000d0000",
        HEADER("0104", "000c") "002a00080000000000000000",
        HEADER("001c", "000c") "0012000800032142e112a643",
        HEADER("0103", "0008") "0016000400012142",
        HEADER("0103", "0008") "8023000400012142",
        HEADER("0103", "0008") "0016000800012142",
    };
    struct turn_msg msg;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_EQ(parse(bad[i], &msg), ERR_EFORMAT);
}

static void each_truncation_and_each_changed_byte_is_survived(void) {
    struct turn_login login = known();
    struct stun_endpoint peer = endpoint("192.0.2.1", 80);
    struct turn_request request = {TURN_CONNECT, 0, 0, 0, &peer, 1};
    uint8_t out[TURN_REQUEST_MAX];
    struct turn_msg msg;
    size_t length = turn_write(&request, &login, id, out);
    for (size_t i = 0; i < length; i++) {
        uint8_t *copy = malloc(i ? i : 1); /* so that a sanitizer sees its end */
        memcpy(copy, out, i);
        CHECK_EQ(turn_msg_parse(copy, i, &msg), ERR_EFORMAT);
        free(copy);
        for (unsigned bit = 0; bit < 8; bit++) {
            out[i] ^= (uint8_t)(1u << bit);
            int status = turn_msg_parse(out, length, &msg);
            CHECK(status == ERR_EFORMAT || !stun_msg_is_by(out, &msg.stun, login.key, 16));
            out[i] ^= (uint8_t)(1u << bit);
        }
    }
}

/* --- logins -------------------------------------------------------------------------------- */

static void logins_learn_from_what_is_of_use(void) {
    struct turn_login login = known();
    char zero[] = "a\0b";
    uint8_t key[STUN_KEY_SIZE];
    memcpy(key, login.key, sizeof key);
    CHECK(!turn_login_learn(&login, &(struct stun_msg){.error = 403, .nonce = {"n", 1}}));
    CHECK(!turn_login_learn(&login, &(struct stun_msg){.error = 438}));
    CHECK(turn_login_learn(&login, &(struct stun_msg){.error = 438, .nonce = {"new", 3}}));
    CHECK_EQ(login.nonce_length, 3);
    CHECK(memcmp(key, login.key, sizeof key) == 0); /* the realm is as it was */
    struct turn_login fresh;
    CHECK_EQ(turn_login_init(&fresh, "u", ""), 0); /* some have no password */
    CHECK(!turn_login_learn(&fresh, &(struct stun_msg){.error = 401, .nonce = {"n", 1}}));
    CHECK(!turn_login_learn(
        &fresh, &(struct stun_msg){.error = 401, .nonce = {"n", 1}, .realm = {zero, 3}}));
    CHECK(!turn_login_learn(
        &fresh, &(struct stun_msg){.error = 401, .nonce = {"n", 0}, .realm = {"r", 1}}));
    turn_login_wipe(&login);
    CHECK_EQ(login.user[0] | login.password[0] | login.key[0], 0);
}

int main(void) {
    RUN(requests_are_those_of_another_implementation);
    RUN(requests_are_about_tcp);
    RUN(requests_fit_or_are_none);
    RUN(coturns_answers_are_read);
    RUN(what_tcp_relays_say_is_read);
    RUN(the_first_counts_and_none_after_the_signature);
    RUN(bad_messages_are_refused);
    RUN(each_truncation_and_each_changed_byte_is_survived);
    RUN(logins_learn_from_what_is_of_use);
    return check_report();
}
