/* addr: the text that a peer hands out so that others can reach it.
 *
 * Provides  struct addr, addr_parse, addr_format; the words for NAT and delta types
 * Uses      ip, key
 * Pure. The text, ASCII, five sections that a '-' separates (which occurs nowhere else):
 *
 *     signal - IPv4 interfaces - IPv6 interfaces - node id - machine id
 *
 * signal is "None" or offsets into the list of brokers, with commas; a family is "0" or, with '|',
 * up to three of
 *
 *     [netiface_index,if_index,external ip,internal ip,port,nat type,delta type,delta value] */
#ifndef CORE_ADDR_H
#define CORE_ADDR_H

#include "core/ip.h"
#include "core/key.h"

#define ADDR_SIGNAL_MAX 6
#define ADDR_BROKERS 15 /* entries of the list that offsets point into */
#define ADDR_INTERFACES_MAX 3
#define ADDR_INDEX_MAX INT32_MAX
#define ADDR_NODE_ID_MAX 64
#define ADDR_MACHINE_ID_MAX 128
#define ADDR_TEXT_SIZE 800 /* the longest text that is written (787), and the final NUL */

enum addr_nat {
    ADDR_NAT_OPEN = 1,
    ADDR_NAT_UDP_FIREWALL,
    ADDR_NAT_FULL_CONE,
    ADDR_NAT_RESTRICTED,
    ADDR_NAT_PORT_RESTRICTED, /* what is assumed when nothing is known */
    ADDR_NAT_SYMMETRIC,
    ADDR_NAT_BLOCKED,
};

enum addr_delta {
    ADDR_DELTA_NA = 1,
    ADDR_DELTA_EQUAL,
    ADDR_DELTA_PRESERVING,
    ADDR_DELTA_INDEPENDENT,
    ADDR_DELTA_DEPENDENT,
    ADDR_DELTA_RANDOM, /* what is assumed when nothing is known */
};

struct addr_interface {
    uint32_t netiface_index; /* place in the operating system's list */
    uint32_t if_index; /* place in the node's own list: the entry's key, unique in its family */
    struct ip external;
    struct ip internal; /* without zone: that is the reader's to find */
    uint16_t port;      /* TCP, never 0 */
    uint8_t nat;        /* enum addr_nat */
    uint8_t delta;      /* enum addr_delta */
    uint16_t delta_value;
};

struct addr_family {
    uint8_t count;
    struct addr_interface interfaces[ADDR_INTERFACES_MAX];
};

struct addr {
    uint8_t signal_count;
    uint8_t signal[ADDR_SIGNAL_MAX];
    struct addr_family ipv4, ipv6;
    char node_id[ADDR_NODE_ID_MAX + 1];
    char machine_id[ADDR_MACHINE_ID_MAX + 1];
    bool ours; /* the node id is a public key, below; otherwise it is opaque */
    uint8_t key[KEY_PUBLIC_SIZE];
};

/* Which part is wrong ("ipv4 interface 2: port") and why ("65536 is not between 1 and 65535"). */
struct addr_error {
    char field[48];
    char reason[112];
};

/* Reads a text strictly: what breaks a rule is refused, never mended or passed over. 0, or
 * UV_EINVAL with *error filled (error may be NULL). */
int addr_parse(const char *text, size_t length, struct addr *out, struct addr_error *error);

/* Checks all fields as addr_parse would, and sets `ours` and `key` from node_id. */
int addr_check(struct addr *addr, struct addr_error *error);

/* Writes the text of an address that addr_check accepts, and the final NUL; returns its length.
 * IPv6 is written in eight groups of four digits. */
size_t addr_format(const struct addr *addr, char out[ADDR_TEXT_SIZE]);

/* "full-cone" for 3 and so on; NULL for a number without a word. The other way: 0 for a word
 * without a number. */
const char *addr_nat_word(unsigned nat);
const char *addr_delta_word(unsigned delta);
unsigned addr_nat_number(const char *word);
unsigned addr_delta_number(const char *word);

#endif
