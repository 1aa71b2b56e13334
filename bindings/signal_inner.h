/* signal_inner: what the files of the signal binding share; for them alone.
 *
 *   signal.c       the messages that arrive and are sent; the module
 *   signal_link.c  the links to brokers
 *
 * Provides  struct signaling, and what its two halves want of each other
 * Uses      core/signal, bindings/wait
 * Owns      the signal and the links that are not closed, until it is closed itself */
#ifndef BINDINGS_SIGNAL_INNER_H
#define BINDINGS_SIGNAL_INNER_H

#include "bindings/wait.h"
#include "core/signal.h"

struct link;
struct received;

struct signaling {
    struct signal *signal; /* NULL once it is closed */
    struct link *links;
    struct received *first, *last;
    unsigned count;
    uint64_t overload;
    struct wait_link receivers;
};

/* The signal at index 1, which may be closed; and what its methods return when it is. */
struct signaling *check_open_signal(lua_State *L);
int push_signal_closed(lua_State *L);

/* signal:link { ip=, port=, [host=], [tls=], [ca=], [timeout=] } -> link, once it is up */
int signal_link_method(lua_State *L);

/* Closes the link, takes it off its signal's list and ends all waits for it. */
void close_link(struct link *link);

/* Those of the list at `arg` that are not closed, and how many; throws when it is no such list. */
size_t collect_links(lua_State *L, int arg, struct signal_link *links[SIGNAL_LINKS_MAX]);

int count_links_up(const struct signaling *signaling);

/* Makes the metatable of the links. */
void make_link_type(lua_State *L);

#endif
