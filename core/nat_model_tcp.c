#include "core/nat_model_tcp.h"

/* Outbound; the same for inbound lies four bits higher. */
enum { SEEN_SYN = 1, SEEN_ACK = 2, SEEN_FIN = 4, SEEN_RST = 8 };

bool nat_tcp_opens(uint8_t flags) {
    return (flags & (NAT_SYN | NAT_ACK | NAT_RST | NAT_FIN)) == NAT_SYN;
}

uint8_t nat_tcp_see(uint8_t seen, bool outbound, uint8_t flags) {
    if (nat_tcp_opens(flags) && nat_tcp_over(seen))
        seen = 0;
    unsigned ours = outbound ? 0 : 4, theirs = 4 - ours, now = 0;
    if (flags & NAT_SYN)
        now |= SEEN_SYN;
    if (flags & NAT_ACK && seen >> theirs & SEEN_SYN)
        now |= SEEN_ACK;
    if (flags & NAT_FIN)
        now |= SEEN_FIN;
    if (flags & NAT_RST)
        now |= SEEN_RST;
    return (uint8_t)(seen | now << ours);
}

static bool both(uint8_t seen, unsigned what) {
    return (seen & what) == what && (seen >> 4 & what) == what;
}

enum nat_tcp_phase nat_tcp_phase(uint8_t seen) {
    if (seen & (SEEN_RST | SEEN_RST << 4))
        return NAT_TCP_RESET;
    if (both(seen, SEEN_FIN))
        return NAT_TCP_CLOSING;
    return both(seen, SEEN_SYN | SEEN_ACK) ? NAT_TCP_ESTABLISHED : NAT_TCP_OPENING;
}

bool nat_tcp_over(uint8_t seen) {
    return nat_tcp_phase(seen) >= NAT_TCP_CLOSING;
}
