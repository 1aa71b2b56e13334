#include "core/err.h"
#include "core/portmap.h"

#include <errno.h>
#include <natpmp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

/*  0                   1                   2                   3          RFC 6886, 3.2 and 3.3
 *  +-------+-------+---------------+---------------+---------------+
 *  | vers  | 128+op|  result code  |       seconds since epoch     |
 *  +-------+-------+---------------+---------------+---------------+
 *  | external address (op 0), or internal port, external port      |
 *  +---------------------------------------------------------------+
 *  |  lifetime (op 1 and 2)                                        |
 *  +---------------------------------------------------------------+ */
enum { HEADER_SIZE = 8, ADDRESS_SIZE = 12, MAPPING_SIZE = 16 };
enum { ANSWER_BIT = 128 };

static int64_t now_ms(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* libnatpmp reads all fields, whatever the length, and errors from any version and operation: what
 * waits in the socket is looked at before it may. Of answers for another port only newer versions
 * know that they are not ours. */
static int is_answer(natpmp_t *client, unsigned operation, unsigned port) {
    uint8_t bytes[MAPPING_SIZE + 1];
    ssize_t length = recv(client->s, bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT);
    if (length < 0)
        return 1; /* an error of the socket: libnatpmp tells which */
    if (length < HEADER_SIZE || length > MAPPING_SIZE)
        return 0;
    if (bytes[0] != 0) /* PCP's own versions (RFC 6887, appendix A) */
        return bytes[0] <= 2 && bytes[1] >= ANSWER_BIT;
    if (bytes[1] != ANSWER_BIT + operation)
        return 0;
    if (bytes[2] != 0 || bytes[3] != 0)
        return 1;
    if (operation == 0)
        return length == ADDRESS_SIZE;
    return length == MAPPING_SIZE && (unsigned)(bytes[8] << 8 | bytes[9]) == port;
}

static int status_of(int failure) {
    switch (failure) {
    case NATPMP_ERR_NOGATEWAYSUPPORT:
        return UV_ECONNREFUSED;
    case NATPMP_ERR_UNSUPPORTEDVERSION:
    case NATPMP_ERR_UNSUPPORTEDOPCODE:
        return UV_ENOTSUP;
    case NATPMP_ERR_NOTAUTHORIZED:
        return UV_EACCES;
    case NATPMP_ERR_NETWORKFAILURE:
        return UV_ENETDOWN;
    case NATPMP_ERR_OUTOFRESOURCES:
        return UV_ENOBUFS;
    case NATPMP_ERR_UNDEFINEDERROR:
        return ERR_EFORMAT;
    default:
        return errno ? -errno : UV_EIO;
    }
}

/* Milliseconds until the request is to be sent again, or the deadline. */
static int patience(natpmp_t *client, int64_t deadline_ms) {
    struct timeval retry;
    int64_t left = deadline_ms - now_ms();
    if (getnatpmprequesttimeout(client, &retry) == 0) {
        int64_t until = (int64_t)retry.tv_sec * 1000 + retry.tv_usec / 1000 + 1;
        left = until < left ? until : left;
    }
    return left < 0 ? 0 : (int)left;
}

static int await(natpmp_t *client, unsigned operation, unsigned port, unsigned timeout_ms,
                 natpmpresp_t *answer) {
    int64_t deadline_ms = now_ms() + timeout_ms;
    int otherwise = UV_ETIMEDOUT;
    while (now_ms() < deadline_ms) {
        struct pollfd readable = {.fd = client->s, .events = POLLIN};
        int ready = poll(&readable, 1, patience(client, deadline_ms));
        if (ready > 0 && !is_answer(client, operation, port)) {
            uint8_t byte;
            (void)!recv(client->s, &byte, sizeof byte, MSG_DONTWAIT);
            otherwise = ERR_EFORMAT;
            continue;
        }
        errno = 0;
        int result = readnatpmpresponseorretry(client, answer); /* sends anew where it is time to */
        if (result == 0)
            return 0;
        if (result != NATPMP_TRYAGAIN)
            return status_of(result);
    }
    return otherwise;
}

static int begin(natpmp_t *client, const struct natpmp_request *request, unsigned *operation) {
    errno = 0;
    int sent;
    if (request->protocol == 0) {
        *operation = 0;
        sent = sendpublicaddressrequest(client);
    } else {
        *operation = request->protocol == IPPROTO_TCP ? NATPMP_PROTOCOL_TCP : NATPMP_PROTOCOL_UDP;
        sent = sendnewportmappingrequest(client, (int)*operation, request->internal_port,
                                         request->external_port, request->lifetime_s);
    }
    return sent < 0 ? status_of(sent) : 0;
}

int natpmp_ask(const struct natpmp_request *request, unsigned timeout_ms,
               struct natpmp_answer *answer) {
    natpmp_t client;
    natpmpresp_t got = {0};
    unsigned operation;
    errno = 0;
    int status = initnatpmp(&client, 1, request->gateway.s_addr); /* its socket is connected */
    if (status != 0)
        return status_of(status);
    status = begin(&client, request, &operation);
    if (status == 0)
        status = await(&client, operation, request->internal_port, timeout_ms, &got);
    closenatpmp(&client);
    if (status != 0)
        return status;
    memset(answer, 0, sizeof *answer);
    answer->epoch_s = got.epoch;
    if (operation == 0) {
        answer->external = got.pnu.publicaddress.addr;
    } else {
        answer->external_port = got.pnu.newportmapping.mappedpublicport;
        answer->lifetime_s = got.pnu.newportmapping.lifetime;
    }
    return 0;
}
