/* dns: addresses of a host name, in a time that the caller sets.
 *
 * Provides  dns_resolve
 * Uses      ip, err, the C library's getaddrinfo; has threads of its own
 * Owns      up to DNS_THREADS threads, which end when nothing is left to look up
 *
 * getaddrinfo can hang for half a minute and cannot be stopped. In libuv's pool it would keep its
 * place there, keep the loop alive, and delay the end of the process, which joins that pool. So
 * look-ups have threads that nobody waits for: one that is given up goes on unseen, and frees what
 * it made. A name is looked up once at a time, however often it is asked for, so that a name that
 * hangs takes one thread. A library that uses it must stay in memory: link with -z nodelete. */
#ifndef CORE_DNS_H
#define CORE_DNS_H

#include "core/ip.h"

#include <uv.h>

#define DNS_THREADS 8
#define DNS_ADDRESSES_MAX 16
#define DNS_NAME_MAX 253 /* RFC 1035, 2.3.4, in text */

struct dns;

/* The addresses are in the order of RFC 6724, both families mixed; count is 0 unless status is. */
typedef void (*dns_done)(void *arg, int status, const struct ip *addresses, size_t count);

/* Looks up a name, or reads an address. 0: `done` comes once, not from inside the call, with 0,
 * UV_ETIMEDOUT, UV_EAI_NONAME, UV_EAI_AGAIN or another of getaddrinfo's. Else it never comes:
 * UV_EINVAL (no host name), UV_ENOMEM, UV_EAGAIN (no thread). */
int dns_resolve(uv_loop_t *loop, const char *host, unsigned timeout_ms, dns_done done, void *arg,
                struct dns **out);

/* Gives up: `done` will not come. Not after it came. */
void dns_cancel(struct dns *dns);

#endif
