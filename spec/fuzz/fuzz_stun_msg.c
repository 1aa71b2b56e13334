/* Any bytes: parsed within bounds, what is accepted keeps its promises, and written anew from its
 * attributes it is the same message. */
#include "core/stun_msg.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void must(bool condition) {
    if (!condition)
        abort();
}

static void check_endpoint(const struct stun_endpoint *endpoint) {
    must(endpoint->ip.family == 0 || endpoint->ip.family == 4 || endpoint->ip.family == 6);
}

static void check_text(const struct stun_text *text, const uint8_t *bytes, size_t length) {
    const uint8_t *start = (const uint8_t *)text->text;
    must(!start || (start >= bytes + STUN_HEADER_SIZE && start + text->length <= bytes + length));
}

static void write_anew(const uint8_t *bytes, size_t length, const struct stun_msg *message) {
    uint8_t *copy = malloc(length);
    struct stun_writer writer;
    struct stun_msg again;
    stun_write(&writer, copy, length, message->class, message->method, message->id);
    for (struct stun_attribute attribute = {0}; stun_msg_next(bytes, length, &attribute);)
        if (attribute.type != STUN_FINGERPRINT) /* which padding that is not zero goes into */
            stun_write_bytes(&writer, attribute.type, attribute.value, attribute.length);
    if (message->fingerprint)
        stun_write_fingerprint(&writer);
    must(writer.length == length);
    must(memcmp(copy, bytes, STUN_HEADER_SIZE) == 0);
    must(stun_msg_parse(copy, length, &again) == 0);
    must(again.error == message->error && again.unknown == message->unknown &&
         again.change == message->change && again.integrity == message->integrity &&
         again.fingerprint == message->fingerprint &&
         ip_equal(&again.mapped.ip, &message->mapped.ip) &&
         ip_equal(&again.other.ip, &message->other.ip) &&
         again.nonce.length == message->nonce.length);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
    struct stun_msg message;
    if (stun_msg_parse(bytes, length, &message) != 0)
        return 0;
    must(stun_msg_length(bytes) == length);
    must(message.class <= STUN_ERROR && message.method <= 0xFFF);
    must(message.error == 0 || (message.error >= 300 && message.error <= 699));
    check_endpoint(&message.mapped);
    check_endpoint(&message.origin);
    check_endpoint(&message.other);
    check_text(&message.software, bytes, length);
    check_text(&message.username, bytes, length);
    check_text(&message.realm, bytes, length);
    check_text(&message.nonce, bytes, length);
    stun_msg_is_by(bytes, &message, "VOkJxbRl1RmTxUk/WvJxBt", 22);
    write_anew(bytes, length, &message);
    return 0;
}
