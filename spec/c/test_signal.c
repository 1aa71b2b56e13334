/* Sealed messages over brokers: what reaches a node, what is counted instead, and who pays for
 * junk. check: alone */
#include "core/signal.h"

#include "core/err.h"
#include "spec/c/broker.h"
#include "spec/c/until.h"

#include <time.h>
#include <unistd.h>

#define FLOOD_PER_MS 10

struct node {
    struct key *key;
    struct signal *signal;
    struct signal_link *links[4];
    int ups, downs, messages, stale, closed;
    int64_t skew_ms;
    uint64_t heard_ns;
    struct seal_message last;
    char body[64];
    void (*on_event)(struct node *node);
};

static void on_message(void *arg, const struct seal_message *message) {
    struct node *node = arg;
    node->messages++;
    node->heard_ns = uv_hrtime();
    node->last = *message;
    snprintf(node->body, sizeof(node->body), "%.*s", (int)message->body_length, message->body);
    if (node->on_event)
        node->on_event(node);
}

static void on_stale(void *arg, const struct seal_message *message, int64_t skew_ms) {
    struct node *node = arg;
    (void)message;
    node->stale++;
    node->skew_ms = skew_ms;
}

static void on_up(void *arg) {
    ((struct node *)arg)->ups++;
}

static void on_down(void *arg, int status) {
    (void)status;
    ((struct node *)arg)->downs++;
}

static void on_closed(void *arg) {
    ((struct node *)arg)->closed++;
}

static void make(struct node *node) {
    struct signal_options options = {.on_message = on_message, .on_stale = on_stale, .arg = node};
    CHECK_EQ(key_generate(&node->key), 0);
    options.key = node->key;
    CHECK_EQ(signal_new(&loop, &options, &node->signal), 0);
}

static void join(struct node *node, int place, struct sockaddr_in *address) {
    struct signal_link_options options = {
        .remote = (struct sockaddr *)address,
        .connect_timeout_ms = 3000,
        .on_up = on_up,
        .on_down = on_down,
        .arg = node,
    };
    CHECK_EQ(signal_link(node->signal, &options, &node->links[place]), 0);
}

static int tell(struct node *from, const struct node *to, const char *text, size_t links) {
    uint8_t id[SEAL_ID_SIZE];
    return signal_send(from->signal, key_public(to->key), text, strlen(text), 0, from->links, links,
                       id);
}

static struct inbox_counters count(const struct node *node) {
    struct inbox_counters counters;
    signal_counters(node->signal, &counters);
    return counters;
}

static void part(struct node *node) {
    key_drop(node->key);
    if (node->signal)
        signal_close(node->signal, on_closed);
}

static void end(struct broker *brokers, size_t broker_count) {
    for (size_t i = 0; i < broker_count; i++)
        broker_stop(&brokers[i]);
    CHECK_EQ(close_loop(), 0);
}

/* Two nodes, each at all of the brokers. */
static void meet(struct node *a, struct node *b, struct broker *brokers, int broker_count) {
    open_loop();
    make(a);
    make(b);
    memset(brokers, 0, sizeof(*brokers) * (size_t)broker_count);
    for (int i = 0; i < broker_count; i++) {
        struct sockaddr_in address = broker_start(&brokers[i], &loop);
        join(a, i, &address);
        join(b, i, &address);
    }
    UNTIL(a->ups == broker_count && b->ups == broker_count);
}

static void a_message_arrives_once_however_many_brokers(void) {
    struct broker brokers[3];
    struct node a = {0}, b = {0};
    meet(&a, &b, brokers, 3);
    CHECK_EQ(tell(&a, &b, "hello", 3), 3);
    UNTIL(b.messages && count(&b).replayed == 2);
    CHECK_EQ(b.messages, 1);
    CHECK_TEXT(b.body, "hello");
    CHECK(memcmp(b.last.sender, key_public(a.key), KEY_PUBLIC_SIZE) == 0);
    CHECK_EQ(count(&b).accepted, 1);
    CHECK_EQ(a.messages, 0);
    CHECK(strstr(brokers[0].payload, "hello") == NULL);
    CHECK_EQ(tell(&b, &a, "hello yourself", 3), 3);
    UNTIL(a.messages);
    CHECK_TEXT(a.body, "hello yourself");
    part(&a);
    part(&b);
    end(brokers, 3);
    CHECK_EQ(a.closed, 1);
}

static void what_cannot_be_sent_is_told(void) {
    struct broker broker = {0};
    struct node a = {0}, b = {0};
    static char big[SEAL_MAX_BODY + 2];
    uint8_t id[SEAL_ID_SIZE], nonsense[KEY_PUBLIC_SIZE] = {4, 1};
    meet(&a, &b, &broker, 1);
    memset(big, 'x', SEAL_MAX_BODY);
    CHECK_EQ(tell(&a, &b, big, 1), 1);
    UNTIL(b.messages);
    CHECK_EQ(b.last.body_length, SEAL_MAX_BODY);
    big[SEAL_MAX_BODY] = 'x';
    CHECK_EQ(tell(&a, &b, big, 1), UV_EMSGSIZE);
    CHECK_EQ(tell(&a, &b, "", 0), UV_ENOTCONN);
    CHECK_EQ(signal_send(a.signal, nonsense, "x", 1, 0, a.links, 1, id), UV_EINVAL);
    broker_stop(&broker);
    UNTIL(a.downs && b.downs);
    CHECK_EQ(tell(&a, &b, "too late", 1), UV_ENOTCONN);
    part(&a);
    part(&b);
    end(NULL, 0);
}

static void publish_raw(struct broker *broker, uint8_t flags, const struct node *to,
                        const void *bytes, size_t length) {
    static uint8_t packet[SEAL_MAX_MESSAGE + 512];
    size_t size = broker_publish(packet, flags, key_id(to->key), bytes, length, length);
    for (struct broker_client *client = broker->clients; client; client = client->next)
        if (strcmp(client->topic, key_id(to->key)) == 0)
            broker_send(client, packet, size);
}

static void what_is_no_message_is_counted(void) {
    struct broker broker = {0};
    struct node a = {0}, b = {0};
    struct key *stranger;
    uint8_t sealed[SEAL_OVERHEAD + 4], id[SEAL_ID_SIZE] = {1};
    static uint8_t huge[SEAL_MAX_MESSAGE + 1];
    struct timespec now;
    meet(&a, &b, &broker, 1);
    key_generate(&stranger);
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t time_ms = (uint64_t)now.tv_sec * 1000;

    publish_raw(&broker, 0, &b, "junk", 4);
    publish_raw(&broker, 0, &b, huge, SEAL_OVERHEAD + 1);
    publish_raw(&broker, 0, &b, huge, sizeof(huge));
    seal(a.key, key_public(stranger), time_ms + 1500, id, "body", 4, sealed);
    publish_raw(&broker, 0, &b, sealed, sizeof(sealed)); /* to somebody else */
    seal(a.key, key_public(b.key), time_ms - 100000, id, "body", 4, sealed);
    publish_raw(&broker, 0, &b, sealed, sizeof(sealed)); /* from before we started */
    seal(a.key, key_public(b.key), time_ms + 300000, id, "body", 4, sealed);
    publish_raw(&broker, 0, &b, sealed, sizeof(sealed)); /* five minutes ahead */
    seal(a.key, key_public(b.key), time_ms + 1500, id, "body", 4, sealed);
    publish_raw(&broker, 1, &b, sealed, sizeof(sealed)); /* kept */
    publish_raw(&broker, 0, &b, sealed, sizeof(sealed));
    publish_raw(&broker, 0, &b, sealed, sizeof(sealed)); /* again */
    UNTIL(count(&b).replayed);
    struct inbox_counters counters = count(&b);
    CHECK_EQ(counters.malformed, 2);
    CHECK_EQ(counters.oversized, 1);
    CHECK_EQ(counters.foreign, 1);
    CHECK_EQ(counters.stale, 2);
    CHECK_EQ(counters.retained, 1);
    CHECK_EQ(counters.accepted, 1);
    CHECK_EQ(b.messages, 1);
    CHECK_EQ(b.stale, 2);
    CHECK(b.skew_ms > 298000 && b.skew_ms < 301000);

    signal_set_clock_offset(a.signal, 300000); /* a believes that it is later */
    tell(&a, &b, "from the future", 1);
    UNTIL(b.stale == 3);
    signal_set_clock_offset(b.signal, 300000);
    tell(&a, &b, "agreed", 1);
    UNTIL(b.messages == 2);
    CHECK_TEXT(b.body, "agreed");
    signal_link_close(b.links[0]);
    CHECK_EQ(count(&b).oversized, 1); /* what it counted stays */
    key_drop(stranger);
    part(&a);
    part(&b);
    end(&broker, 1);
}

static void telling_of_stale_ones_is_limited(void) {
    struct broker broker = {0};
    struct node a = {0}, b = {0};
    uint8_t sealed[SEAL_OVERHEAD + 4], id[SEAL_ID_SIZE] = {1};
    meet(&a, &b, &broker, 1);
    for (uint8_t i = 0; i < 50; i++) {
        id[1] = i;
        seal(a.key, key_public(b.key), 1000, id, "body", 4, sealed);
        publish_raw(&broker, 0, &b, sealed, sizeof(sealed));
    }
    UNTIL(count(&b).stale == 50);
    CHECK(b.stale >= 8 && b.stale < 20);
    part(&a);
    part(&b);
    end(&broker, 1);
}

struct flood {
    uv_timer_t timer;
    struct broker *broker;
    const struct node *to;
    uint8_t sealed[200];
    int sent;
};

/* Looks like a message as far as one can see without our key: each costs as much as it can. */
static void on_flood(uv_timer_t *timer) {
    struct flood *flood = container_of(timer, struct flood, timer);
    for (int i = 0; i < FLOOD_PER_MS; i++)
        publish_raw(flood->broker, 0, flood->to, flood->sealed, sizeof(flood->sealed));
    flood->sent += FLOOD_PER_MS;
}

static void junk_at_some_brokers_does_not_delay_the_others(void) {
    enum { FLOODED = 3, ALL = 4, TRIES = 10 };
    struct broker brokers[ALL];
    struct flood floods[FLOODED];
    struct node a = {0}, b = {0};
    struct key *other;
    uint8_t id[SEAL_ID_SIZE] = {1};
    double took_ms[TRIES];
    meet(&a, &b, brokers, ALL);
    memset(floods, 0, sizeof(floods));
    key_generate(&other);
    for (int i = 0; i < FLOODED; i++) {
        floods[i].broker = &brokers[i];
        floods[i].to = &b;
        seal(other, key_public(other), 1, id, "12345678901234567890123456789",
             sizeof(floods[i].sealed) - SEAL_OVERHEAD, floods[i].sealed);
        uv_timer_init(&loop, &floods[i].timer);
        uv_timer_start(&floods[i].timer, on_flood, 1, 1);
    }
    RUN_UNTIL(false, 300);
    for (int i = 0; i < TRIES; i++) {
        uint64_t sent = uv_hrtime();
        uint8_t sent_id[SEAL_ID_SIZE];
        CHECK_EQ(
            signal_send(a.signal, key_public(b.key), "good", 4, 0, &a.links[ALL - 1], 1, sent_id),
            1);
        UNTIL(b.messages == i + 1);
        took_ms[i] = (double)(b.heard_ns - sent) / 1e6;
        RUN_UNTIL(false, 50);
    }
    CHECK(check_longest_but_one(took_ms, TRIES) < 100);
    struct inbox_counters counters = count(&b);
    CHECK(floods[0].sent > 1000);
    CHECK(counters.limited > 0);
    CHECK(counters.foreign * 4 <
          (uint64_t)(floods[0].sent + floods[1].sent + floods[2].sent)); /* most were not opened */
    for (int i = 0; i < FLOODED; i++)
        uv_close((uv_handle_t *)&floods[i].timer, NULL);
    key_drop(other);
    part(&a);
    part(&b);
    end(brokers, ALL);
}

static void close_all(struct node *node) {
    signal_close(node->signal, on_closed);
    node->signal = NULL;
}

static void it_may_be_closed_while_it_opens(void) {
    struct broker brokers[2];
    struct node a = {0}, b = {0};
    meet(&a, &b, brokers, 2);
    b.on_event = close_all;
    for (int i = 0; i < 20; i++)
        tell(&a, &b, "x", 2);
    UNTIL(b.closed);
    CHECK_EQ(b.messages, 1);
    key_drop(b.key);
    part(&a);
    end(brokers, 2);
}

static void links_are_bounded(void) {
    struct broker broker = {0};
    struct node a = {0};
    struct signal_link *links[SIGNAL_LINKS_MAX + 1];
    open_loop();
    make(&a);
    struct sockaddr_in address = broker_start(&broker, &loop);
    struct signal_link_options options = {.remote = (struct sockaddr *)&address,
                                          .connect_timeout_ms = 5000,
                                          .on_up = on_up,
                                          .on_down = on_down,
                                          .arg = &a};
    for (int i = 0; i < SIGNAL_LINKS_MAX; i++)
        CHECK_EQ(signal_link(a.signal, &options, &links[i]), 0);
    CHECK_EQ(signal_link(a.signal, &options, &links[SIGNAL_LINKS_MAX]), UV_EMFILE);
    UNTIL(a.ups == SIGNAL_LINKS_MAX);
    signal_link_close(links[5]);
    CHECK_EQ(signal_link(a.signal, &options, &links[5]), 0);
    part(&a);
    end(&broker, 1);
}

int main(void) {
    RUN(a_message_arrives_once_however_many_brokers);
    RUN(what_cannot_be_sent_is_told);
    RUN(what_is_no_message_is_counted);
    RUN(telling_of_stale_ones_is_limited);
    RUN(junk_at_some_brokers_does_not_delay_the_others);
    RUN(it_may_be_closed_while_it_opens);
    RUN(links_are_bounded);
    return check_report();
}
