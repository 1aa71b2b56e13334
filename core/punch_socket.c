#include "core/punch_inner.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define BACKLOG 64
#define LIVES_ON 2 /* TTL that a quoted packet must have to end an opener */
#define SPARE 128  /* descriptors that are left to the rest of the program */
#define FEW 32     /* no reason to count */

static int set(int fd, int level, int name, int value) {
    return setsockopt(fd, level, name, &value, sizeof value);
}

static uint16_t port_of(int fd) {
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof address;
    struct ip ip;
    uint16_t port = 0;
    if (getsockname(fd, (struct sockaddr *)&address, &size) == 0)
        ip_from_sockaddr((struct sockaddr *)&address, &ip, &port);
    return port;
}

int punch_socket_bound(const struct punch_place *place, uint16_t *port, int *out) {
    struct sockaddr_storage address;
    bool six = place->local.family == 6;
    int fd = socket(six ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    socklen_t size = ip_to_sockaddr(&place->local, *port, &address);
    size_t name = strlen(place->device);
    if (set(fd, SOL_SOCKET, SO_REUSEADDR, 1) || set(fd, SOL_SOCKET, SO_REUSEPORT, 1) ||
        (six && set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1)) ||
        (name &&
         setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, place->device, (socklen_t)name) != 0) ||
        bind(fd, (struct sockaddr *)&address, size) != 0) {
        int status = -errno;
        close(fd);
        return status;
    }
    if (*port == 0)
        *port = port_of(fd);
    *out = fd;
    return 0;
}

int punch_socket_listen(const struct punch_place *place, uint16_t *port, int *out) {
    int status = punch_socket_bound(place, port, out);
    if (status != 0)
        return status;
    if (listen(*out, BACKLOG) == 0)
        return 0;
    status = -errno;
    close(*out);
    return status;
}

static void set_ttl(const struct punch_place *place, int fd, int ttl) {
    if (place->local.family == 6) {
        set(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, ttl);
        return;
    }
    set(fd, IPPROTO_IP, IP_TTL, ttl);
    if (ttl > 0)
        set(fd, IPPROTO_IP, IP_MINTTL, LIVES_ON);
}

int punch_socket_connect(const struct punch_place *place, int fd, uint16_t port, uint8_t ttl) {
    struct sockaddr_storage address;
    socklen_t size = ip_to_sockaddr(&place->remote, port, &address);
    if (ttl)
        set_ttl(place, fd, ttl);
    int status = connect(fd, (struct sockaddr *)&address, size) == 0 ? 0 : -errno;
    if (ttl)
        set_ttl(place, fd, -1); /* the system's */
    return status == -EINPROGRESS ? 0 : status;
}

int punch_socket_status(int fd) {
    int error = 0;
    socklen_t size = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
        return -errno;
    return -error;
}

int punch_socket_ends(int fd, struct punch_hole *out) {
    struct sockaddr_storage local = {0}, remote = {0};
    socklen_t local_size = sizeof local, remote_size = sizeof remote;
    if (getsockname(fd, (struct sockaddr *)&local, &local_size) != 0 ||
        getpeername(fd, (struct sockaddr *)&remote, &remote_size) != 0)
        return -errno;
    ip_from_sockaddr((struct sockaddr *)&local, &out->local, &out->local_port);
    ip_from_sockaddr((struct sockaddr *)&remote, &out->remote, &out->remote_port);
    if (local.ss_family == AF_INET)
        set(fd, IPPROTO_IP, IP_MINTTL, 0);
    return 0;
}

void punch_socket_abort(int fd) {
    const struct linger at_once = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(fd);
}

/* Descriptors that are open; 0 when that cannot be seen. */
static size_t count_open(void) {
    size_t count = 0;
    DIR *folder = opendir("/proc/self/fd");
    if (!folder)
        return 0;
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

int punch_socket_room(size_t more) {
    struct rlimit limit;
    if (more <= FEW || getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 0;
    size_t wanted = count_open() + more + SPARE;
    if (limit.rlim_cur >= wanted)
        return 0;
    if (limit.rlim_max < wanted)
        return UV_EMFILE;
    limit.rlim_cur = wanted;
    return setrlimit(RLIMIT_NOFILE, &limit) == 0 ? 0 : UV_EMFILE;
}
