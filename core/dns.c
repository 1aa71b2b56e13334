#include "core/dns.h"

#include "core/err.h"
#include "core/loop.h"

#include <netdb.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* A name that is being looked up, or waits for a thread; `lock` guards all of it. */
struct lookup {
    struct lookup *next;
    struct dns *askers;
    bool running;
    char host[DNS_NAME_MAX + 2];
};

struct dns {
    uv_async_t async;
    uv_timer_t timer;
    dns_done done;
    void *arg;
    struct lookup *lookup; /* NULL when it is answered or given up */
    struct dns *next;      /* with the same name */
    unsigned closing;
    int status;
    size_t count;
    struct ip addresses[DNS_ADDRESSES_MAX];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct lookup *lookups; /* in the order in which they came */
static unsigned threads;

/* ---- on threads of our own ---- */

static int translate(int error) {
    static const struct {
        int error, status;
    } table[] = {
        {EAI_AGAIN, UV_EAI_AGAIN},     {EAI_FAIL, UV_EAI_FAIL},
        {EAI_MEMORY, UV_EAI_MEMORY},   {EAI_NONAME, UV_EAI_NONAME},
        {EAI_NODATA, UV_EAI_NODATA},   {EAI_FAMILY, UV_EAI_FAMILY},
        {EAI_SERVICE, UV_EAI_SERVICE}, {EAI_ADDRFAMILY, UV_EAI_ADDRFAMILY},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (table[i].error == error)
            return table[i].status;
    return UV_EAI_FAIL;
}

static size_t collect(const struct addrinfo *found, struct ip addresses[DNS_ADDRESSES_MAX]) {
    size_t count = 0;
    for (; found && count < DNS_ADDRESSES_MAX; found = found->ai_next) {
        struct ip ip;
        uint16_t port;
        ip_from_sockaddr(found->ai_addr, &ip, &port);
        size_t same = 0;
        while (same < count && !ip_equal(&addresses[same], &ip))
            same++;
        if (ip.family && same == count)
            addresses[count++] = ip;
    }
    return count;
}

static struct lookup *next_waiting(void) {
    struct lookup *lookup = lookups;
    while (lookup && lookup->running)
        lookup = lookup->next;
    return lookup;
}

static void forget(struct lookup *lookup) {
    struct lookup **place = &lookups;
    while (*place != lookup)
        place = &(*place)->next;
    *place = lookup->next;
    free(lookup);
}

static void answer(struct lookup *lookup, int status, const struct ip *addresses, size_t count) {
    for (struct dns *dns = lookup->askers, *next; dns; dns = next) {
        next = dns->next;
        dns->lookup = NULL;
        dns->status = status;
        dns->count = count;
        memcpy(dns->addresses, addresses, count * sizeof(*addresses));
        uv_async_send(&dns->async);
    }
    forget(lookup);
}

static void *work(void *unused) {
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct lookup *lookup;
    (void)unused;
    pthread_mutex_lock(&lock);
    while ((lookup = next_waiting())) {
        struct ip addresses[DNS_ADDRESSES_MAX];
        size_t count = 0;
        lookup->running = true;
        pthread_mutex_unlock(&lock);
        struct addrinfo *found = NULL;
        int error = getaddrinfo(lookup->host, NULL, &hints, &found);
        if (error == 0) {
            count = collect(found, addresses);
            freeaddrinfo(found);
        }
        pthread_mutex_lock(&lock);
        answer(lookup, error ? translate(error) : count ? 0 : UV_EAI_NODATA, addresses, count);
    }
    threads--;
    pthread_mutex_unlock(&lock);
    return NULL;
}

/* With `lock` held. Without any thread there would be no answer; with some, the others serve it in
 * turn. */
static int ensure_thread(void) {
    if (threads >= DNS_THREADS)
        return 0;
    pthread_attr_t detached;
    pthread_t thread;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    int error = pthread_create(&thread, &detached, work, NULL);
    pthread_attr_destroy(&detached);
    if (error == 0)
        threads++;
    return error && threads == 0 ? UV_EAGAIN : 0;
}

/* ---- on the loop's thread ---- */

static void on_closed(uv_handle_t *handle) {
    struct dns *dns = handle->type == UV_ASYNC ? container_of(handle, struct dns, async)
                                               : container_of(handle, struct dns, timer);
    if (--dns->closing == 0)
        free(dns);
}

static void dispose(struct dns *dns) {
    dns->closing = 2;
    uv_close((uv_handle_t *)&dns->async, on_closed);
    uv_close((uv_handle_t *)&dns->timer, on_closed);
}

/* Takes the asker out of its look-up, and the look-up out of the queue when nobody asks any more.
 */
static void leave(struct dns *dns) {
    pthread_mutex_lock(&lock);
    struct lookup *lookup = dns->lookup;
    if (lookup) {
        struct dns **place = &lookup->askers;
        while (*place != dns)
            place = &(*place)->next;
        *place = dns->next;
        dns->lookup = NULL;
        if (!lookup->askers && !lookup->running)
            forget(lookup);
    }
    pthread_mutex_unlock(&lock);
}

static void finish(struct dns *dns, int status) {
    leave(dns);
    dispose(dns);
    dns->done(dns->arg, status, dns->addresses, status ? 0 : dns->count);
}

static bool answered(struct dns *dns) {
    pthread_mutex_lock(&lock);
    bool is = !dns->lookup;
    pthread_mutex_unlock(&lock);
    return is;
}

static void on_answer(uv_async_t *async) {
    struct dns *dns = container_of(async, struct dns, async);
    if (!dns->closing)
        finish(dns, dns->status);
}

static void on_timeout(uv_timer_t *timer) {
    struct dns *dns = container_of(timer, struct dns, timer);
    finish(dns, answered(dns) ? dns->status : UV_ETIMEDOUT);
}

/* With `lock` held. */
static int enqueue(struct dns *dns, const char *host) {
    struct lookup **place = &lookups;
    while (*place && strcasecmp((*place)->host, host) != 0)
        place = &(*place)->next;
    struct lookup *lookup = *place;
    if (!lookup) {
        lookup = calloc(1, sizeof(*lookup));
        int status = lookup ? ensure_thread() : UV_ENOMEM;
        if (status) {
            free(lookup);
            return status;
        }
        memcpy(lookup->host, host, strlen(host) + 1);
        *place = lookup;
    }
    dns->lookup = lookup;
    dns->next = lookup->askers;
    lookup->askers = dns;
    return 0;
}

int dns_resolve(uv_loop_t *loop, const char *host, unsigned timeout_ms, dns_done done, void *arg,
                struct dns **out) {
    size_t length = strlen(host);
    if (length == 0 || length > DNS_NAME_MAX + 1) /* a final dot is not counted */
        return UV_EINVAL;
    struct dns *dns = calloc(1, sizeof(*dns));
    if (!dns)
        return UV_ENOMEM;
    dns->done = done;
    dns->arg = arg;
    bool literal = ip_parse(host, length, &dns->addresses[0]) == 0;
    int status = uv_async_init(loop, &dns->async, on_answer);
    if (status) {
        free(dns);
        return status;
    }
    uv_timer_init(loop, &dns->timer);
    if (literal) {
        dns->count = 1;
    } else {
        pthread_mutex_lock(&lock);
        status = enqueue(dns, host);
        pthread_mutex_unlock(&lock);
    }
    if (status) {
        dispose(dns);
        return status;
    }
    uv_update_time(loop);
    uv_timer_start(&dns->timer, on_timeout, literal ? 0 : timeout_ms, 0);
    *out = dns;
    return 0;
}

void dns_cancel(struct dns *dns) {
    leave(dns);
    dispose(dns);
}
