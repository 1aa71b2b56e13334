/* delay: hosts on one machine, and between them a link that takes its time.
 *
 *   delay MS...   a host for each number; a packet takes the sum of both its hosts' milliseconds
 *
 * Prints "host PID ADDRESS" for each, then "ready", and ends when its standard input does. A host
 * is a network namespace: `nsenter --net --target PID program` runs something there (with --user
 * --preserve-credentials when we are not root). Namespaces have no names: they are gone when this
 * program is. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define HOSTS 8
#define MTU 1500
#define NETWORK                                                                                    \
    0x0b161600u /* 11.22.22.0/24: it looks like any address of the Internet, and has no route out  \
                 */
#define QUEUE_MAX 4096 /* packets, for each pair of hosts */

struct packet {
    struct packet *next;
    uint64_t due_ns;
    size_t length;
    uint8_t bytes[];
};

/* From one host to another all packets take the same time, so they leave in the order of their
 * coming. */
struct queue {
    struct packet *first, **last;
    unsigned count;
};

struct host {
    int tun;
    pid_t holder;
    uint64_t delay_ns;
    struct queue to[HOSTS];
};

static struct host hosts[HOSTS];
static int count;

static void die(const char *what) {
    fprintf(stderr, "delay: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void write_text(const char *path, const char *text) {
    int file = open(path, O_WRONLY);
    if (file < 0 || write(file, text, strlen(text)) < 0)
        die(path);
    close(file);
}

/* Without root, all this happens in a user namespace where we are. */
static void become_root(void) {
    char map[32];
    snprintf(map, sizeof map, "0 %u 1", (unsigned)getuid());
    if (geteuid() == 0)
        return;
    if (unshare(CLONE_NEWUSER) != 0)
        die("a user namespace is not allowed here; run it as root");
    write_text("/proc/self/setgroups", "deny");
    write_text("/proc/self/uid_map", map);
}

static void configure(int control, unsigned long request, struct ifreq *interface,
                      const char *what) {
    if (ioctl(control, request, interface) != 0)
        die(what);
}

static void set_up(const char *name, uint32_t address, uint32_t mask) {
    struct ifreq interface = {0};
    struct sockaddr_in ip = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};
    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(interface.ifr_name, sizeof interface.ifr_name, "%s", name);
    memcpy(&interface.ifr_addr, &ip, sizeof ip);
    configure(control, SIOCSIFADDR, &interface, "SIOCSIFADDR");
    ip.sin_addr.s_addr = htonl(mask);
    memcpy(&interface.ifr_netmask, &ip, sizeof ip);
    configure(control, SIOCSIFNETMASK, &interface, "SIOCSIFNETMASK");
    configure(control, SIOCGIFFLAGS, &interface, "SIOCGIFFLAGS");
    interface.ifr_flags |= IFF_UP;
    configure(control, SIOCSIFFLAGS, &interface, "SIOCSIFFLAGS");
    close(control);
}

static int open_tun(uint32_t address) {
    struct ifreq interface = {.ifr_name = "link0", .ifr_flags = IFF_TUN | IFF_NO_PI};
    int tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (tun < 0)
        die("/dev/net/tun");
    configure(tun, TUNSETIFF, &interface, "TUNSETIFF");
    set_up("lo", INADDR_LOOPBACK, 0xff000000u);
    set_up("link0", address, 0xffffff00u);
    return tun;
}

static void send_file(int channel, int file) {
    char control[CMSG_SPACE(sizeof file)] = {0}, byte = 0;
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control};
    message.msg_controllen = sizeof control;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof file);
    memcpy(CMSG_DATA(header), &file, sizeof file);
    if (sendmsg(channel, &message, 0) != 1)
        die("sendmsg");
}

static int receive_file(int channel) {
    int file = -1;
    char control[CMSG_SPACE(sizeof file)], byte;
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control};
    message.msg_controllen = sizeof control;
    if (recvmsg(channel, &message, MSG_CMSG_CLOEXEC) != 1 || !CMSG_FIRSTHDR(&message))
        exit(1); /* the child has said why */
    memcpy(&file, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof file);
    return file;
}

/* A namespace lives as long as a process in it: a child that does nothing else, and dies with us.
 */
static void open_host(struct host *host, uint32_t address) {
    int channel[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel) != 0)
        die("socketpair");
    host->holder = fork();
    if (host->holder < 0)
        die("fork");
    if (host->holder == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (unshare(CLONE_NEWNET) != 0)
            die("a network namespace is not allowed here");
        int tun = open_tun(address);
        send_file(channel[1], tun);
        close(tun); /* it is the parent's now: the link ends with the parent */
        for (int i = 0; i < 3; i++)
            close(i);
        for (;;)
            pause();
    }
    close(channel[1]);
    host->tun = receive_file(channel[0]);
    close(channel[0]);
    for (int i = 0; i < HOSTS; i++)
        host->to[i].last = &host->to[i].first;
}

/* Takes what a host sends. RFC 791, 3.1: the version is in the first half byte, the destination in
 * bytes 16 to 19. */
static void take(struct host *from) {
    uint8_t bytes[MTU];
    ssize_t length;
    uint32_t destination;
    while ((length = read(from->tun, bytes, sizeof bytes)) > 0) {
        if (length < 20 || bytes[0] >> 4 != 4)
            continue;
        memcpy(&destination, bytes + 16, sizeof destination);
        uint32_t number = ntohl(destination) - NETWORK - 1;
        if (number >= (uint32_t)count || from->to[number].count >= QUEUE_MAX)
            continue;
        struct queue *queue = &from->to[number];
        struct packet *packet = malloc(sizeof *packet + (size_t)length);
        if (!packet)
            continue;
        packet->next = NULL;
        packet->due_ns = now_ns() + from->delay_ns + hosts[number].delay_ns;
        packet->length = (size_t)length;
        memcpy(packet->bytes, bytes, packet->length);
        *queue->last = packet;
        queue->last = &packet->next;
        queue->count++;
    }
}

/* Hands over what is due, and returns when the next will be; 0 when nothing is under way. */
static uint64_t deliver(void) {
    uint64_t next_ns = 0;
    for (int from = 0; from < count; from++)
        for (int to = 0; to < count; to++) {
            struct queue *queue = &hosts[from].to[to];
            struct packet *packet;
            while ((packet = queue->first) && packet->due_ns <= now_ns()) {
                if (write(hosts[to].tun, packet->bytes, packet->length) < 0 && errno != EAGAIN)
                    die("write");
                queue->first = packet->next;
                if (!queue->first)
                    queue->last = &queue->first;
                queue->count--;
                free(packet);
            }
            if (packet && (next_ns == 0 || packet->due_ns < next_ns))
                next_ns = packet->due_ns;
        }
    return next_ns;
}

static void forward(void) {
    struct pollfd files[HOSTS + 1];
    for (int i = 0; i < count; i++)
        files[i] = (struct pollfd){.fd = hosts[i].tun, .events = POLLIN};
    files[count] = (struct pollfd){.fd = 0, .events = POLLIN};
    for (;;) {
        char byte;
        uint64_t next_ns = deliver(), now = now_ns();
        uint64_t pause_ns = next_ns > now ? next_ns - now : 0;
        struct timespec pause = {(time_t)(pause_ns / 1000000000u), (long)(pause_ns % 1000000000u)};
        if (ppoll(files, (nfds_t)count + 1, next_ns ? &pause : NULL, NULL) < 0 && errno != EINTR)
            die("ppoll");
        for (int i = 0; i < count; i++)
            if (files[i].revents)
                take(&hosts[i]);
        if (files[count].revents && read(0, &byte, 1) <= 0)
            return;
    }
}

int main(int arguments, char **argument) {
    count = arguments - 1;
    if (count < 2 || count > HOSTS) {
        fprintf(stderr, "usage: delay MS MS [MS...]\n");
        return 2;
    }
    prctl(PR_SET_TIMERSLACK, 1);
    become_root();
    for (int i = 0; i < count; i++) {
        uint32_t address = NETWORK + 1 + (uint32_t)i;
        struct in_addr ip = {htonl(address)};
        hosts[i].delay_ns = (uint64_t)(atof(argument[1 + i]) * 1e6);
        open_host(&hosts[i], address);
        printf("host %d %s\n", (int)hosts[i].holder, inet_ntoa(ip));
    }
    printf("ready\n");
    fflush(stdout);
    forward();
    for (int i = 0; i < count; i++)
        kill(hosts[i].holder, SIGKILL);
    return 0;
}
