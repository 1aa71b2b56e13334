#include "core/err.h"
#include "core/inbox.h"
#include "core/seen.h"
#include "spec/c/check.h"

#define NOW 1800000000000ull /* any time of this age */
#define MINUTE 60000

static struct key *alice, *bob, *eve;
static struct inbox *inbox;
static uint8_t sealed[SEAL_MAX_MESSAGE];
static int64_t skew_ms;

static size_t write_from(const struct key *sender, uint64_t time_ms, uint32_t number) {
    uint8_t id[SEAL_ID_SIZE] = {0};
    memcpy(id, &number, sizeof number);
    CHECK_EQ(seal(sender, key_public(bob), time_ms, id, "hello", 5, sealed), 0);
    return SEAL_OVERHEAD + 5;
}

static int arrive(size_t length, uint64_t now_ms, int64_t offset_ms) {
    uint8_t buffer[SEAL_MAX_MESSAGE];
    struct seal_message message;
    skew_ms = 0;
    return inbox_open(inbox, bob, sealed, length, now_ms, offset_ms, buffer, &message, &skew_ms);
}

static int deliver(uint64_t time_ms, uint32_t number, uint64_t now_ms) {
    return arrive(write_from(alice, time_ms, number), now_ms, 0);
}

static void begin(uint64_t started_ms) {
    inbox_free(inbox);
    CHECK_EQ(inbox_new(started_ms, &inbox), 0);
}

static void a_fresh_message_is_taken_once(void) {
    uint8_t buffer[SEAL_MAX_MESSAGE];
    struct seal_message message;
    begin(NOW);
    size_t length = write_from(alice, NOW + 1, 1);
    CHECK_EQ(inbox_open(inbox, bob, sealed, length, NOW + 2, 0, buffer, &message, NULL), 0);
    CHECK_EQ(message.body_length, 5);
    CHECK(memcmp(message.body, "hello", 5) == 0);
    CHECK_EQ(arrive(length, NOW + 3, 0), ERR_EREPLAYED);
    CHECK_EQ(arrive(length, NOW + MINUTE, 0), ERR_EREPLAYED);
    CHECK_EQ(deliver(NOW + 1, 1, NOW + 2), ERR_EREPLAYED); /* sealed anew, with the same id */
    CHECK_EQ(deliver(NOW + 5, 1, NOW + 5), ERR_EREPLAYED);
    CHECK_EQ(deliver(NOW + 1, 2, NOW + 2), 0);
    CHECK_EQ(inbox_counters(inbox)->accepted, 2);
    CHECK_EQ(inbox_counters(inbox)->replayed, 4);
    CHECK_EQ(inbox_ids(inbox), 2);
}

static void nobody_can_use_up_the_id_of_another(void) {
    begin(NOW);
    CHECK_EQ(arrive(write_from(eve, NOW, 1), NOW, 0), 0);
    CHECK_EQ(deliver(NOW, 1, NOW), 0);
}

static void times_are_held_to_the_window(void) {
    begin(NOW - 10 * MINUTE);
    CHECK_EQ(deliver(NOW - MINUTE, 1, NOW), 0);
    CHECK_EQ(skew_ms, -MINUTE);
    CHECK_EQ(deliver(NOW + MINUTE, 2, NOW), 0);
    CHECK_EQ(deliver(NOW - MINUTE - 1, 3, NOW), ERR_ESTALE);
    CHECK_EQ(skew_ms, -MINUTE - 1);
    CHECK_EQ(deliver(NOW + MINUTE + 1, 4, NOW), ERR_ESTALE);
    CHECK_EQ(skew_ms, MINUTE + 1);
    CHECK_EQ(deliver(0, 5, NOW), ERR_ESTALE);
    CHECK_EQ(deliver(UINT64_MAX, 6, NOW), ERR_ESTALE);
    CHECK(skew_ms == INT64_MAX);
    CHECK_EQ(deliver((uint64_t)INT64_MAX + 1, 7, 0), ERR_ESTALE);
    CHECK_EQ(inbox_counters(inbox)->stale, 5);
    CHECK_EQ(inbox_ids(inbox), 2);
}

static void what_was_sent_before_the_start_is_stale(void) {
    begin(NOW);
    CHECK_EQ(deliver(NOW - 1, 1, NOW + 10), ERR_ESTALE);
    CHECK_EQ(deliver(NOW, 2, NOW + 10), 0);
}

static void the_offset_corrects_both_now_and_start(void) {
    const int64_t hour = 60 * MINUTE;
    begin(NOW); /* by a clock that is an hour behind */
    CHECK_EQ(arrive(write_from(alice, NOW + (uint64_t)hour, 1), NOW + 10, hour), 0);
    CHECK_EQ(arrive(write_from(alice, NOW + (uint64_t)hour - 1, 2), NOW + 10, hour), ERR_ESTALE);
    CHECK_EQ(arrive(write_from(alice, NOW, 3), NOW + 10, hour), ERR_ESTALE);
    CHECK_EQ(skew_ms, -hour - 10);
    begin(NOW); /* and by one that is an hour ahead */
    CHECK_EQ(arrive(write_from(alice, NOW - (uint64_t)hour, 1), NOW + 10, -hour), 0);
    CHECK_EQ(arrive(write_from(alice, NOW, 2), NOW + 10, INT64_MIN), ERR_ESTALE);
}

static void no_copy_passes_when_the_clock_is_set_back(void) {
    begin(NOW);
    size_t length = write_from(alice, NOW + 1, 0);
    uint8_t copy[SEAL_OVERHEAD + 5];
    memcpy(copy, sealed, sizeof copy);
    CHECK_EQ(arrive(length, NOW + 1, 0), 0);
    /* Enough messages, two minutes on, to have the first one forgotten. */
    for (uint32_t i = 1; i <= 40; i++)
        CHECK_EQ(deliver(NOW + 2 * MINUTE, i, NOW + 2 * MINUTE), 0);
    CHECK_EQ(inbox_ids(inbox), 40);
    memcpy(sealed, copy, sizeof copy);
    CHECK_EQ(arrive(length, NOW + 2, 0), ERR_ESTALE);
    CHECK_EQ(deliver(NOW + 3, 99, NOW + 3), 0); /* while others go on */
}

static void junk_is_sorted_and_counted(void) {
    begin(NOW);
    memset(sealed, 'x', sizeof sealed);
    CHECK_EQ(arrive(0, NOW, 0), ERR_EFORMAT);
    CHECK_EQ(arrive(300, NOW, 0), ERR_EFORMAT);
    CHECK_EQ(arrive(SEAL_MAX_MESSAGE + 1, NOW, 0), UV_EMSGSIZE);
    size_t length = write_from(alice, NOW, 1);
    sealed[length - 1] ^= 1;
    CHECK_EQ(arrive(length, NOW, 0), ERR_EFOREIGN);
    const struct inbox_counters *counters = inbox_counters(inbox);
    CHECK_EQ(counters->malformed, 2);
    CHECK_EQ(counters->oversized, 1);
    CHECK_EQ(counters->foreign, 1);
    CHECK_EQ(counters->accepted, 0);
    CHECK_EQ(inbox_ids(inbox), 0);
}

static void old_ids_are_forgotten(void) {
    begin(NOW);
    uint64_t now = NOW;
    for (uint32_t i = 0; i < 1500; i++, now += 1000)
        CHECK_EQ(deliver(now, i, now), 0);
    CHECK(inbox_ids(inbox) <= 128); /* a minute's worth, and what was not swept yet */
}

static void digest_of(uint32_t number, uint8_t out[SHA256_SIZE]) {
    sha256(&(struct piece){&number, sizeof number}, 1, out);
}

static int see(struct seen *seen, uint32_t number, uint64_t until_ms, uint64_t now_ms) {
    uint8_t digest[SHA256_SIZE];
    digest_of(number, digest);
    return seen_add(seen, digest, until_ms, now_ms);
}

static bool knows(const struct seen *seen, uint32_t number) {
    uint8_t digest[SHA256_SIZE];
    digest_of(number, digest);
    return seen_has(seen, digest);
}

static void a_full_memory_refuses_rather_than_forgets(void) {
    struct seen seen;
    CHECK_EQ(seen_init(&seen, INBOX_IDS_MAX), 0);
    for (uint32_t i = 0; i < INBOX_IDS_MAX; i++)
        CHECK_EQ(see(&seen, i, 5000, 0), 0);
    CHECK_EQ(see(&seen, INBOX_IDS_MAX, 5000, 0), UV_ENOBUFS);
    CHECK_EQ(see(&seen, INBOX_IDS_MAX, 5000, 5000), UV_ENOBUFS);
    for (uint32_t i = 0; i < INBOX_IDS_MAX; i++)
        CHECK(knows(&seen, i));
    CHECK(!knows(&seen, INBOX_IDS_MAX));
    CHECK_EQ(seen.slot_count, 2 * INBOX_IDS_MAX);
    /* Room has come, but a full table is not searched for it at each message. */
    CHECK_EQ(see(&seen, INBOX_IDS_MAX, 9000, 5001), UV_ENOBUFS);
    CHECK_EQ(see(&seen, INBOX_IDS_MAX, 9000, 6000), 0);
    CHECK_EQ(seen.used, 1);
    CHECK_EQ(seen.slot_count, 64);
    CHECK_EQ(seen.forgotten_ms, 5000);
    CHECK(knows(&seen, INBOX_IDS_MAX));
    seen_free(&seen);
}

static void a_memory_grows_and_shrinks(void) {
    struct seen seen;
    CHECK_EQ(seen_init(&seen, 4096), 0);
    for (uint32_t now = 0; now < 20000; now++) { /* bursts of 2,000, of which each lasts 2,000 */
        if (now % 8000 < 2000)
            CHECK_EQ(see(&seen, now, now + 2000, now), 0);
        else if (now % 100 == 0)
            CHECK_EQ(see(&seen, now, now, now), 0);
        CHECK(seen.used <= seen.slot_count / 2);
        for (uint32_t back = 0; back < 2000 && back <= now; back += 37)
            if ((now - back) % 8000 < 2000)
                CHECK(knows(&seen, now - back));
    }
    CHECK(seen.slot_count <= 4096);
    seen_free(&seen);
}

int main(void) {
    if (key_generate(&alice) != 0 || key_generate(&bob) != 0 || key_generate(&eve) != 0)
        return 1;
    RUN(a_fresh_message_is_taken_once);
    RUN(nobody_can_use_up_the_id_of_another);
    RUN(times_are_held_to_the_window);
    RUN(what_was_sent_before_the_start_is_stale);
    RUN(the_offset_corrects_both_now_and_start);
    RUN(no_copy_passes_when_the_clock_is_set_back);
    RUN(junk_is_sorted_and_counted);
    RUN(old_ids_are_forgotten);
    RUN(a_full_memory_refuses_rather_than_forgets);
    RUN(a_memory_grows_and_shrinks);
    inbox_free(inbox);
    key_drop(alice);
    key_drop(bob);
    key_drop(eve);
    return check_report();
}
