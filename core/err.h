/* err: every status that a function of core/ returns, by name and by sentence.
 *
 * Provides  the statuses of our own, beside libuv's UV_E…: zero is success, all others are negative
 * Uses      libuv's names for its own
 * The list below feeds C, Lua and the documentation: a status is added here and nowhere else. */
#ifndef CORE_ERR_H
#define CORE_ERR_H

#include <uv.h>

#define ERR_LIST(X)                                                                                \
    X(ECLOSED, -31001, "it was closed")                                                            \
    X(EDEADLOCK, -31002, "nothing is left that could wake it")                                     \
    X(EFORMAT, -31003, "the bytes do not follow the format")                                       \
    X(EPEER, -31004, "the peer is another one than was asked for")                                 \
    X(ETLS, -31005, "the secure handshake failed")                                                 \
    X(EDENIED, -31006, "it was refused by allow()")                                                \
    X(EFOREIGN, -31007, "it is sealed to another key")                                             \
    X(EFORGED, -31008, "its signature does not hold")                                              \
    X(ESTALE, -31009, "its time is outside of what is accepted")                                   \
    X(EREPLAYED, -31010, "it was seen before")                                                     \
    X(EUNREACHABLE, -31011, "no way to the peer was found")                                        \
    X(ELOST, -31012, "the peer kept another connection")                                           \
    X(ESCRIPT, -31013, "a strategy threw an error")                                                \
    X(ESKIPPED, -31014, "the strategy does not apply")

enum err_status {
#define X(name, number, sentence) ERR_##name = number,
    ERR_LIST(X)
#undef X
};

/* "ECLOSED", "ETIMEDOUT", …; "OK" for zero, "EUNKNOWN" for a number that is no status. */
const char *err_name(int status);

/* One clause without a full stop, fit to follow "what failed: ". */
const char *err_message(int status);

#endif
