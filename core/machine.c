#include "core/machine.h"

#include "core/bytes.h"
#include "core/crypto.h"

#include <ctype.h>
#include <limits.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The first line of a file, without white space around it. */
static bool read_line(const char *path, char *out, size_t size) {
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    bool got = fgets(out, (int)size, file) != NULL;
    fclose(file);
    if (!got)
        return false;
    size_t length = strlen(out);
    while (length > 0 && isspace((unsigned char)out[length - 1]))
        out[--length] = '\0';
    return length > 0;
}

/* The interface of the default route: the name is column 0 of the IPv4 table, the last one of the
 * IPv6 table (proc_net(5)); IPv6 lists an unreachable default of "lo", too. */
static bool default_interface(char out[IF_NAMESIZE]) {
    char line[512], destination[64], prefix[8];
    bool found = false;
    FILE *file = fopen("/proc/net/route", "re");
    while (file && !found && fgets(line, sizeof line, file))
        found = sscanf(line, "%15s %63s", out, destination) == 2 &&
                strcmp(destination, "00000000") == 0;
    if (file)
        fclose(file);
    if (found)
        return true;
    file = fopen("/proc/net/ipv6_route", "re");
    while (file && !found && fgets(line, sizeof line, file))
        found = sscanf(line, "%63s %7s %*s %*s %*s %*s %*s %*s %*s %15s", destination, prefix,
                       out) == 3 &&
                strcmp(prefix, "00") == 0 && strcmp(out, "lo") != 0;
    if (file)
        fclose(file);
    return found;
}

static void id_without_system(char out[MACHINE_ID_SIZE]) {
    char host[HOST_NAME_MAX + 1] = "", name[IF_NAMESIZE] = "", mac[64] = "", text[512], path[64];
    gethostname(host, sizeof host - 1);
    if (default_interface(name)) {
        snprintf(path, sizeof path, "/sys/class/net/%s/address", name);
        if (!read_line(path, mac, sizeof mac))
            mac[0] = '\0';
    } else {
        name[0] = '\0';
    }
    int length = snprintf(text, sizeof text, "p2pd %s %s %s", host, name, mac);
    uint8_t digest[SHA256_SIZE];
    sha256(&(struct piece){text, (size_t)length}, 1, digest);
    hex_encode(digest, sizeof digest, out);
}

void machine_id_of(const char *system_id, size_t length, char out[MACHINE_ID_SIZE]) {
    uint8_t digest[SHA256_SIZE];
    hmac_sha256("p2pd", 4, &(struct piece){system_id, length}, 1, digest);
    hex_encode(digest, sizeof digest, out);
}

void machine_id(char out[MACHINE_ID_SIZE]) {
    static const char *const files[] = {"/etc/machine-id", "/var/lib/dbus/machine-id"};
    char line[128];
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        /* "uninitialized" stands there until the first boot is over (machine-id(5)). */
        if (read_line(files[i], line, sizeof line) && strcmp(line, "uninitialized") != 0) {
            machine_id_of(line, strlen(line), out);
            return;
        }
    id_without_system(out);
}
