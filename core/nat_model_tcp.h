/* nat_model_tcp: how far a TCP session has come, as a router sees it (RFC 5382, 2.1).
 *
 * Provides  what was seen of a session, one byte; its phase
 * Uses      nat_model, for the flags
 * Pure. Sequence numbers are not looked at, so that a RST or FIN outside of the window, which the
 * endpoints would ignore, counts here. */
#ifndef CORE_NAT_MODEL_TCP_H
#define CORE_NAT_MODEL_TCP_H

#include "core/nat_model.h"

enum nat_tcp_phase {
    NAT_TCP_OPENING,
    NAT_TCP_ESTABLISHED, /* each side has sent a SYN, and acknowledged the other's */
    NAT_TCP_CLOSING, /* each side has sent a FIN (one alone leaves it half open, RFC 6146, 3.5.2) */
    NAT_TCP_RESET,
};

/* Whether it is the first packet of a connection. */
bool nat_tcp_opens(uint8_t flags);

/* Adds a packet to what was seen (0: nothing yet). */
uint8_t nat_tcp_see(uint8_t seen, bool outbound, uint8_t flags);

enum nat_tcp_phase nat_tcp_phase(uint8_t seen);
bool nat_tcp_over(uint8_t seen); /* closing or reset: a SYN begins another connection */

#endif
