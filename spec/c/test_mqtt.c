/* One connection to a broker, among brokers that behave as badly as they can.
 * check: alone */
#include "core/mqtt.h"

#include "core/err.h"
#include "spec/c/broker.h"
#include "spec/c/until.h"

#include <unistd.h>

#define STALL_MS 60 /* paho sleeps for 100 ms where it is left alone */

struct probe {
    struct mqtt *mqtt;
    int ups, downs, messages, retained, closed, status;
    uint64_t opened_ns, up_ns, message_ns;
    char last[64];
    void (*on_event)(struct probe *probe);
};

static double ms_between(uint64_t from, uint64_t to) {
    return (double)(to - from) / 1e6;
}

static void event(struct probe *probe) {
    if (probe->on_event)
        probe->on_event(probe);
}

static void on_up(void *arg) {
    struct probe *probe = arg;
    probe->ups++;
    probe->up_ns = uv_hrtime();
    event(probe);
}

static void on_down(void *arg, int status) {
    struct probe *probe = arg;
    probe->downs++;
    probe->status = status;
    event(probe);
}

static void on_message(void *arg, const uint8_t *payload, size_t length, bool retained) {
    struct probe *probe = arg;
    probe->messages++;
    probe->retained += retained;
    probe->message_ns = uv_hrtime();
    snprintf(probe->last, sizeof(probe->last), "%.*s", (int)length, payload);
    event(probe);
}

static void on_closed(void *arg) {
    ((struct probe *)arg)->closed++;
}

static struct mqtt_options defaults(struct probe *probe, struct sockaddr_in *address) {
    return (struct mqtt_options){
        .remote = (struct sockaddr *)address,
        .host = "127.0.0.1",
        .topic = "t",
        .payload_limit = 1000,
        .connect_timeout_ms = 3000,
        .keepalive_s = 20,
        .on_message = on_message,
        .on_up = on_up,
        .on_down = on_down,
        .arg = probe,
    };
}

static int open_with(struct probe *probe, const struct mqtt_options *options) {
    probe->opened_ns = uv_hrtime();
    return mqtt_open(&loop, options, &probe->mqtt);
}

static void open_probe(struct probe *probe, struct sockaddr_in *address) {
    struct mqtt_options options = defaults(probe, address);
    CHECK_EQ(open_with(probe, &options), 0);
}

static void shut(struct probe *probe) {
    if (probe->mqtt)
        mqtt_close(probe->mqtt, on_closed);
    probe->mqtt = NULL;
}

static void meet(struct broker *broker, struct probe *probe) {
    open_loop();
    struct sockaddr_in address = broker_start(broker, &loop);
    open_probe(probe, &address);
    UNTIL(probe->ups);
}

/* All that was opened is closed: the loop ends by itself, and nothing is left in it. */
static void end(struct broker *brokers, size_t count) {
    for (size_t i = 0; i < count; i++)
        broker_stop(&brokers[i]);
    CHECK_EQ(close_loop(), 0);
}

static void comes_up_and_hears_itself(void) {
    struct broker broker = {0};
    struct probe probe = {0};
    open_loop();
    struct sockaddr_in address = broker_start(&broker, &loop);
    open_probe(&probe, &address);
    CHECK_EQ(mqtt_publish(probe.mqtt, "t", "early", 5), UV_ENOTCONN);
    UNTIL(probe.ups);
    CHECK(broker.together);
    CHECK_EQ(strlen(broker.client_id), 23);
    CHECK_EQ(mqtt_publish(probe.mqtt, "t", "hello", 5), 0);
    UNTIL(probe.messages);
    CHECK_TEXT(probe.last, "hello");
    CHECK_EQ(probe.retained, 0);
    broker_say(&broker, 1, "t", "kept");
    UNTIL(probe.messages == 2);
    CHECK_EQ(probe.retained, 1);
    char long_one[1001] = {0};
    CHECK_EQ(mqtt_publish(probe.mqtt, "t", long_one, sizeof(long_one)), UV_EMSGSIZE);
    CHECK_EQ(mqtt_counters(probe.mqtt).received, 2);
    shut(&probe);
    UNTIL(probe.closed && broker.goodbyes);
    CHECK_EQ(probe.downs, 0);
    end(&broker, 1);
}

static void every_connection_has_an_id_of_its_own(void) {
    struct broker broker = {0};
    struct probe first = {0}, second = {0};
    open_loop();
    struct sockaddr_in address = broker_start(&broker, &loop);
    open_probe(&first, &address);
    UNTIL(first.ups);
    char id[64];
    snprintf(id, sizeof(id), "%s", broker.client_id);
    open_probe(&second, &address);
    UNTIL(second.ups);
    CHECK(strcmp(id, broker.client_id) != 0);
    shut(&first);
    shut(&second);
    end(&broker, 1);
}

/* paho alone needs two seconds for its second connection, and a bad one delays all others. */
static void bad_brokers_cost_the_good_ones_nothing(void) {
    enum { GOOD = 4, ALL = 9 };
    struct broker brokers[ALL] = {
        {.mode = BROKER_SILENT}, {.mode = BROKER_GOOD},    {.mode = BROKER_DROPS},
        {.mode = BROKER_GOOD},   {.mode = BROKER_GARBAGE}, {.mode = BROKER_GOOD},
        {.mode = BROKER_SILENT}, {.mode = BROKER_DROPS},   {.mode = BROKER_GOOD},
    };
    struct probe probes[ALL] = {{0}};
    int ups = 0;
    open_loop();
    for (int i = 0; i < ALL; i++) {
        struct sockaddr_in address = broker_start(&brokers[i], &loop);
        open_probe(&probes[i], &address);
    }
    UNTIL(probes[1].ups && probes[3].ups && probes[5].ups && probes[8].ups);
    for (int i = 0; i < ALL; i++) {
        ups += probes[i].ups;
        if (probes[i].ups)
            CHECK(ms_between(probes[i].opened_ns, probes[i].up_ns) < STALL_MS);
    }
    CHECK_EQ(ups, GOOD + 2); /* one that drops does so after 100 ms */
    uint64_t sent = uv_hrtime();
    CHECK_EQ(mqtt_publish(probes[8].mqtt, "t", "still", 5), 0);
    UNTIL(probes[8].messages);
    CHECK(ms_between(sent, probes[8].message_ns) < STALL_MS);
    UNTIL(probes[2].downs && probes[7].downs && probes[4].downs);
    CHECK_EQ(probes[2].status, UV_EOF);
    CHECK_EQ(probes[4].status, UV_EPROTO);
    for (int i = 0; i < ALL; i++)
        shut(&probes[i]);
    end(brokers, ALL);
}

static void reopen(struct probe *probe) {
    if (!probe->downs || !probe->mqtt)
        return;
    struct sockaddr_in *address = (struct sockaddr_in *)(void *)probe->last;
    probe->downs = 0;
    shut(probe);
    probe->closed += 100; /* counts the connections */
    open_probe(probe, address);
}

static void one_that_drops_again_and_again_delays_nobody(void) {
    struct broker brokers[2] = {{.mode = BROKER_DROPS}, {.mode = BROKER_GOOD}};
    struct probe bad = {.on_event = reopen}, good = {0};
    open_loop();
    struct sockaddr_in address = broker_start(&brokers[0], &loop);
    memcpy(bad.last, &address, sizeof(address));
    open_probe(&bad, &address);
    address = broker_start(&brokers[1], &loop);
    open_probe(&good, &address);
    UNTIL(good.ups);
    for (int i = 0; i < 10; i++) {
        uint64_t sent = uv_hrtime();
        CHECK_EQ(mqtt_publish(good.mqtt, "t", "x", 1), 0);
        UNTIL(good.messages == i + 1);
        CHECK(ms_between(sent, good.message_ns) < STALL_MS);
        RUN_UNTIL(false, 60);
    }
    CHECK(bad.closed >= 400);
    bad.on_event = NULL;
    shut(&bad);
    shut(&good);
    end(brokers, 2);
}

static void a_message_does_not_wait_for_sleepers(void) {
    struct broker broker = {0};
    struct probe probe = {0};
    meet(&broker, &probe);
    for (int i = 0; i < 12; i++) {
        RUN_UNTIL(false, 170); /* paho is idle for more than its second */
        uint64_t sent = uv_hrtime();
        broker_say(&broker, 0, "t", "x");
        UNTIL(probe.messages == i + 1);
        CHECK(ms_between(sent, probe.message_ns) < STALL_MS);
    }
    shut(&probe);
    end(&broker, 1);
}

static void a_message_does_not_wait_for_an_acknowledgement(void) {
    struct broker broker = {0};
    struct probe probe = {0};
    enum { ROUNDS = 20, LATE_MS = 40 }; /* as late as Linux acknowledges what may be answered */
    meet(&broker, &probe);
    uv_tcp_nodelay(&broker.clients->tcp, 0); /* as mosquitto, unless told otherwise */
    uint64_t began = uv_hrtime();
    for (int i = 0; i < ROUNDS; i++) {
        CHECK_EQ(mqtt_publish(probe.mqtt, "nobody", "x", 1), 0);
        UNTIL(broker.publishes == i + 1);
        broker_say(&broker, 0, "t", "one");
        broker_say(&broker, 0, "t", "two");
        UNTIL(probe.messages == 2 * (i + 1));
    }
    CHECK((uv_hrtime() - began) / 1000000 < ROUNDS * LATE_MS / 2);
    shut(&probe);
    end(&broker, 1);
}

static int outcome(struct broker *broker, unsigned timeout_ms) {
    struct probe probe = {0};
    struct sockaddr_in address = broker_start(broker, &loop);
    struct mqtt_options options = defaults(&probe, &address);
    options.connect_timeout_ms = timeout_ms;
    CHECK_EQ(open_with(&probe, &options), 0);
    UNTIL(probe.downs);
    RUN_UNTIL(false, 20);
    CHECK_EQ(probe.downs, 1);
    CHECK_EQ(probe.ups, 0);
    CHECK_EQ(probe.messages, 0);
    shut(&probe);
    broker_stop(broker);
    RUN_UNTIL(probe.closed, PATIENCE_MS);
    return probe.status;
}

static void refusals_are_told_apart(void) {
    static const struct {
        enum broker_mode mode;
        uint8_t code;
        int status;
    } cases[] = {
        {BROKER_SILENT, 0, UV_ETIMEDOUT}, {BROKER_REFUSES, 1, UV_EPROTO},
        {BROKER_REFUSES, 2, UV_EPROTO},   {BROKER_REFUSES, 3, UV_ECONNREFUSED},
        {BROKER_REFUSES, 5, UV_EACCES},   {BROKER_REFUSES, 99, UV_EPROTO},
        {BROKER_DENIES, 0, UV_EACCES},    {BROKER_GARBAGE, 0, UV_EPROTO},
        {BROKER_IMPATIENT, 0, UV_EPROTO},
    };
    open_loop();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct broker broker = {.mode = cases[i].mode, .code = cases[i].code};
        CHECK_EQ(outcome(&broker, 150), cases[i].status);
        uv_run(&loop, UV_RUN_DEFAULT);
    }
    end(NULL, 0);
}

static void nobody_there(void) {
    struct broker broker = {0};
    struct probe probe = {0};
    open_loop();
    struct sockaddr_in address = broker_start(&broker, &loop);
    broker_stop(&broker);
    uv_run(&loop, UV_RUN_DEFAULT);
    open_probe(&probe, &address);
    UNTIL(probe.downs);
    CHECK_EQ(probe.status, UV_ECONNREFUSED);
    CHECK_EQ(mqtt_publish(probe.mqtt, "t", "x", 1), UV_ENOTCONN);
    shut(&probe);
    end(NULL, 0);
}

static void bad_options_are_refused(void) {
    struct probe probe = {0};
    struct sockaddr_in address = {.sin_family = AF_INET};
    struct mqtt_options options = defaults(&probe, &address);
    open_loop();
    options.topic = "";
    CHECK_EQ(mqtt_open(&loop, &options, &probe.mqtt), UV_EINVAL);
    options.topic = "a/#";
    CHECK_EQ(mqtt_open(&loop, &options, &probe.mqtt), UV_EINVAL);
    options.topic = "t";
    options.keepalive_s = 0;
    CHECK_EQ(mqtt_open(&loop, &options, &probe.mqtt), UV_EINVAL);
    options.keepalive_s = 20;
    options.tls = true;
    options.ca_file = "/nonexistent/ca.pem";
    CHECK_EQ(mqtt_open(&loop, &options, &probe.mqtt), UV_ENOENT);
    options.ca_file = NULL;
    options.host = "";
    CHECK_EQ(mqtt_open(&loop, &options, &probe.mqtt), UV_EINVAL);
    end(NULL, 0);
}

static void a_deaf_broker_is_noticed(void) {
    struct broker broker = {.mode = BROKER_DEAF};
    struct probe probe = {0};
    open_loop();
    struct sockaddr_in address = broker_start(&broker, &loop);
    struct mqtt_options options = defaults(&probe, &address);
    options.keepalive_s = 1;
    CHECK_EQ(open_with(&probe, &options), 0);
    UNTIL(probe.ups);
    UNTIL(probe.downs);
    CHECK_EQ(probe.status, UV_ETIMEDOUT);
    CHECK_EQ(broker.pings, 1);
    shut(&probe);
    end(&broker, 1);
}

static void what_nobody_asked_for_is_passed_over(void) {
    struct broker broker = {0};
    struct probe probe = {0};
    meet(&broker, &probe);
    static uint8_t packet[70000];
    size_t junk = 65000;
    size_t length =
        broker_publish(packet, 0, "t", packet + 2000, 100, 200u << 20); /* says 200 MiB, */
    broker_send(broker.clients, packet, length);
    for (size_t left = (200u << 20) - 100, step; left; left -= step) { /* and sends them */
        step = left < junk ? left : junk;
        memset(packet, 0xff, step);
        broker_send(broker.clients, packet, step);
        if (uv_stream_get_write_queue_size((uv_stream_t *)&broker.clients->tcp) > 1000000)
            RUN_UNTIL(uv_stream_get_write_queue_size((uv_stream_t *)&broker.clients->tcp) == 0,
                      PATIENCE_MS);
    }
    memset(packet, 0, sizeof(packet));
    length = broker_publish(packet, 0, "t", packet + 2000, 1001, 1001);
    broker_send(broker.clients, packet, length);
    broker_say(&broker, 0, "other", "x");
    broker_say(&broker, 0, "tt", "x");
    broker_say(&broker, 2, "t", "QoS 1");
    broker_say(&broker, 4, "t", "QoS 2");
    broker_say(&broker, 0, "t", "good");
    UNTIL(probe.messages);
    CHECK_TEXT(probe.last, "good");
    struct mqtt_counters counters = mqtt_counters(probe.mqtt);
    CHECK_EQ(counters.oversized, 2);
    CHECK_EQ(counters.malformed, 4);
    CHECK_EQ(probe.downs, 0);
    broker_send(broker.clients, (uint8_t[]){0xb0, 2, 0, 1}, 4); /* UNSUBACK */
    UNTIL(probe.downs);
    CHECK_EQ(probe.status, UV_EPROTO);
    shut(&probe);
    end(&broker, 1);
}

static void packets_may_come_in_any_pieces(void) {
    struct broker broker = {0};
    struct probe probe = {0};
    uint8_t packet[512];
    meet(&broker, &probe);
    char text[201];
    memset(text, 'a', 200);
    text[200] = '\0';
    size_t length = broker_publish(packet, 0, "t", text, 200, 200);
    for (size_t i = 0; i < length; i++) {
        broker_send(broker.clients, packet + i, 1);
        uv_run(&loop, UV_RUN_NOWAIT);
    }
    UNTIL(probe.messages);
    CHECK_EQ(strlen(probe.last), 63);
    shut(&probe);
    end(&broker, 1);
}

static bool no_junk(void *arg, const uint8_t *payload, size_t length, bool retained) {
    (void)arg, (void)retained;
    return length && payload[0] == 'g';
}

static void a_flood_is_limited(void) {
    struct broker broker = {0};
    struct probe probe = {0};
    open_loop();
    struct sockaddr_in address = broker_start(&broker, &loop);
    struct mqtt_options options = defaults(&probe, &address);
    options.rate = 50;
    options.burst = 10;
    options.wanted = no_junk;
    CHECK_EQ(open_with(&probe, &options), 0);
    UNTIL(probe.ups);
    for (int i = 0; i < 2000; i++)
        broker_say(&broker, 0, "t", "junk");
    broker_say(&broker, 0, "t", "good");
    UNTIL(probe.messages);
    CHECK_TEXT(probe.last, "good"); /* what nobody wants takes no token */
    for (int i = 0; i < 2000; i++)
        broker_say(&broker, 0, "t", "goods");
    RUN_UNTIL(mqtt_counters(probe.mqtt).received == 4001, PATIENCE_MS);
    RUN_UNTIL(false, 20);
    struct mqtt_counters counters = mqtt_counters(probe.mqtt);
    CHECK_EQ(counters.received, 4001);
    CHECK(probe.messages >= 10 && probe.messages < 200);
    CHECK_EQ(counters.limited, 2001 - probe.messages);
    shut(&probe);
    end(&broker, 1);
}

static void publishing_is_bounded(void) {
    struct broker broker = {0};
    struct probe probe = {0};
    meet(&broker, &probe);
    int taken = 0;
    for (int i = 0; i < 20000; i++)
        taken += mqtt_publish(probe.mqtt, "nobody", "x", 1) == 0;
    CHECK(taken >= 64 && taken < 20000);
    UNTIL(broker.publishes == taken);
    shut(&probe);
    end(&broker, 1);
}

static void close_it(struct probe *probe) {
    shut(probe);
}

static void it_may_be_closed_at_any_moment(void) {
    struct broker broker = {0};
    open_loop();
    struct sockaddr_in address = broker_start(&broker, &loop);
    for (int i = 0; i < 30; i++) {
        struct probe probe = {0};
        open_probe(&probe, &address);
        RUN_UNTIL(false, (unsigned)i / 6);
        shut(&probe);
        UNTIL(probe.closed);
    }
    for (int i = 0; i < 10; i++) { /* with messages on their way */
        struct probe probe = {0};
        open_probe(&probe, &address);
        UNTIL(probe.ups);
        probe.on_event = close_it;
        for (int k = 0; k < 100; k++)
            broker_say(&broker, 0, "t", "x");
        mqtt_publish(probe.mqtt, "t", "y", 1);
        UNTIL(probe.closed);
        CHECK_EQ(probe.messages, 1);
    }
    struct probe probe = {.on_event = close_it};
    open_probe(&probe, &address);
    UNTIL(probe.closed);
    CHECK_EQ(probe.ups, 1);
    broker_stop(&broker);
    struct probe refused = {.on_event = close_it};
    uv_run(&loop, UV_RUN_DEFAULT);
    open_probe(&refused, &address);
    UNTIL(refused.closed);
    CHECK_EQ(refused.downs, 1);
    end(NULL, 0);
}

/* Connects to every port that this process listens on, as others on the machine could. */
static int knock(const struct broker *broker, int *strangers) {
    struct sockaddr_in address, own;
    socklen_t size = sizeof(address);
    int count = 0, size_of_own = sizeof(own);
    uv_tcp_getsockname(&broker->server, (struct sockaddr *)&own, &size_of_own);
    for (int fd = 3; fd < 64; fd++) {
        int listens = 0;
        socklen_t length = sizeof(listens);
        if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) || !listens ||
            getsockname(fd, (struct sockaddr *)&address, &size) || address.sin_port == own.sin_port)
            continue;
        for (int i = 0; i < 3; i++) {
            strangers[count] = socket(AF_INET, SOCK_STREAM, 0);
            connect(strangers[count], (struct sockaddr *)&address, size);
            if (i != 1)
                (void)!write(strangers[count],
                             i ? "\x10\x0c\0\4MQTT\4\2\0\0\0\0" : "GET / HTTP/1.1\r\n\r\n",
                             i ? 14 : 18);
            count++;
        }
        break;
    }
    return count;
}

static void strangers_on_loopback_get_nowhere(void) {
    struct broker broker = {0};
    struct probe probe = {0};
    int strangers[8];
    open_loop();
    struct sockaddr_in address = broker_start(&broker, &loop);
    open_probe(&probe, &address);
    int count = knock(&broker, strangers);
    CHECK_EQ(count, 3);
    UNTIL(probe.ups);
    CHECK_EQ(broker.connects, 1);
    CHECK_EQ(broker.subscribes, 1);
    for (int i = 0; i < count; i++)
        close(strangers[i]);
    shut(&probe);
    end(&broker, 1);
}

struct secure_case {
    const char *certificate, *host, *sni;
    bool trusted;
    int status;
    const char *reason;
};

static void secure(const struct secure_case *c, const struct authority *authority,
                   const char *ca_file) {
    struct broker broker = {.context = broker_context(authority, c->certificate)};
    struct probe probe = {0};
    open_loop();
    struct sockaddr_in address = broker_start(&broker, &loop);
    struct mqtt_options options = defaults(&probe, &address);
    options.tls = true;
    options.host = c->host;
    options.ca_file = c->trusted ? ca_file : NULL;
    CHECK_EQ(open_with(&probe, &options), 0);
    UNTIL(probe.ups || probe.downs);
    CHECK_EQ(probe.status, c->status);
    CHECK_EQ(probe.ups, c->status == 0);
    if (c->status == 0) {
        CHECK_TEXT(broker.sni, c->sni);
        CHECK_EQ(mqtt_publish(probe.mqtt, "t", "sealed", 6), 0);
        UNTIL(probe.messages);
        for (int i = 0; i < 500; i++)
            broker_say(&broker, 0, "t", "more");
        UNTIL(probe.messages + (int)mqtt_counters(probe.mqtt).overload == 501);
    } else {
        CHECK(mqtt_reason(probe.mqtt) != NULL);
        if (mqtt_reason(probe.mqtt))
            CHECK_TEXT(mqtt_reason(probe.mqtt), c->reason);
        CHECK_EQ(broker.connects, 0);
    }
    shut(&probe);
    end(&broker, 1);
    SSL_CTX_free(broker.context);
}

static void a_certificate_must_be_for_the_name_that_was_written(void) {
    static const struct secure_case cases[] = {
        {"DNS:broker.test", "broker.test", "broker.test", true, 0, NULL},
        {"DNS:*.example.test", "b.example.test", "b.example.test", true, 0, NULL},
        {"IP:127.0.0.1", "127.0.0.1", "", true, 0, NULL},
        {"DNS:broker.test", "other.test", "", true, ERR_ETLS, "hostname mismatch"},
        {"DNS:127.0.0.1", "127.0.0.1", "", true, ERR_ETLS, "IP address mismatch"},
        {"IP:127.0.0.1", "broker.test", "", true, ERR_ETLS, "hostname mismatch"},
        {"DNS:broker.test", "broker.test", "", false, ERR_ETLS,
         "unable to get local issuer certificate"},
    };
    char file[] = "/tmp/test_mqtt_ca_XXXXXX";
    int fd = mkstemp(file);
    close(fd);
    struct authority authority = authority_make(file);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        secure(&cases[i], &authority, file);
    authority_free(&authority);
    unlink(file);
}

static void tls_to_one_that_does_not_speak_it(void) {
    static const enum broker_mode modes[] = {BROKER_SILENT, BROKER_DROPS, BROKER_GOOD};
    static const int statuses[] = {UV_ETIMEDOUT, UV_EOF, UV_ETIMEDOUT};
    open_loop();
    for (int i = 0; i < 3; i++) {
        struct broker broker = {.mode = modes[i]};
        struct probe probe = {0};
        struct sockaddr_in address = broker_start(&broker, &loop);
        struct mqtt_options options = defaults(&probe, &address);
        options.tls = true;
        options.host = "broker.test";
        options.connect_timeout_ms = 250;
        CHECK_EQ(open_with(&probe, &options), 0);
        UNTIL(probe.downs);
        CHECK_EQ(probe.status, statuses[i]);
        shut(&probe);
        broker_stop(&broker);
        uv_run(&loop, UV_RUN_DEFAULT);
    }
    end(NULL, 0);
}

int main(void) {
    setenv("http_proxy", "http://127.0.0.1:1", 1); /* which paho would go through */
    mqtt_start_early();
    RUN(comes_up_and_hears_itself);
    RUN(every_connection_has_an_id_of_its_own);
    RUN(bad_brokers_cost_the_good_ones_nothing);
    RUN(one_that_drops_again_and_again_delays_nobody);
    RUN(a_message_does_not_wait_for_sleepers);
    RUN(a_message_does_not_wait_for_an_acknowledgement);
    RUN(refusals_are_told_apart);
    RUN(nobody_there);
    RUN(bad_options_are_refused);
    RUN(a_deaf_broker_is_noticed);
    RUN(what_nobody_asked_for_is_passed_over);
    RUN(packets_may_come_in_any_pieces);
    RUN(a_flood_is_limited);
    RUN(publishing_is_bounded);
    RUN(it_may_be_closed_at_any_moment);
    RUN(strangers_on_loopback_get_nowhere);
    RUN(a_certificate_must_be_for_the_name_that_was_written);
    RUN(tls_to_one_that_does_not_speak_it);
    return check_report();
}
