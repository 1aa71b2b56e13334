#include "core/err.h"
#include "core/portmap.h"

#include <miniupnpc/miniupnpc.h>
#include <miniupnpc/miniwget.h>
#include <stdlib.h>
#include <string.h>

#define DESCRIPTION_MAX (256 * 1024) /* of bytes; routers' own have 2 to 20 KiB */

#if MINIUPNPC_API_VERSION < 14
#error "miniupnpc 1.9 or newer is needed"
#endif

/* What stands between the first <friendlyName> and the next tag. */
static void find_name(const char *xml, size_t size, char name[IGD_NAME_SIZE]) {
    static const char tag[] = "<friendlyName>";
    const char *found = memmem(xml, size, tag, sizeof tag - 1), *end = xml + size;
    name[0] = '\0';
    if (!found)
        return;
    found += sizeof tag - 1;
    const char *stop = memchr(found, '<', (size_t)(end - found));
    size_t length = (size_t)((stop ? stop : end) - found);
    if (length >= IGD_NAME_SIZE)
        length = IGD_NAME_SIZE - 1;
    memcpy(name, found, length);
    name[length] = '\0';
}

static void copy(char *to, size_t size, const char *from) {
    size_t length = from ? strlen(from) : 0;
    if (length >= size)
        length = 0;
    memcpy(to, from ? from : "", length);
    to[length] = '\0';
}

/* miniupnpc joins a service's path with the base of the description. */
static void set_service(struct igd_service *service, const struct IGDdatas_service *from,
                        const char *url) {
    if (from->controlurl[0] == '\0' || from->servicetype[0] == '\0')
        return;
    copy(service->control, sizeof service->control, url);
    copy(service->type, sizeof service->type, from->servicetype);
}

static void read_services(struct igd *igd, struct IGDdatas *data, const char *location) {
    struct UPNPUrls urls = {0};
    GetUPNPUrls(&urls, data, location, 0);
    set_service(&igd->wan[0], &data->first, urls.controlURL);
    set_service(&igd->firewall, &data->IPv6FC, urls.controlURL_6FC);
    FreeUPNPUrls(&urls);
    data->first = data->second;
    GetUPNPUrls(&urls, data, location, 0);
    set_service(&igd->wan[1], &data->first, urls.controlURL);
    FreeUPNPUrls(&urls);
}

int igd_fetch(const char *location, struct igd *igd) {
    int size = 0, http_status = -1;
    struct IGDdatas data = {0};
    memset(igd, 0, sizeof *igd);
    char *xml = miniwget_getaddr(location, &size, igd->internal_ip, sizeof igd->internal_ip, 0,
                                 &http_status);
    if (size < 0 || size > DESCRIPTION_MAX) { /* -1: there was no memory for all of it */
        free(xml);
        return UV_EMSGSIZE;
    }
    if (!xml || size == 0 || http_status != 200) {
        free(xml);
        return UV_EIO;
    }
    parserootdesc(xml, size, &data);
    find_name(xml, (size_t)size, igd->name);
    free(xml);
    read_services(igd, &data, location);
    return igd->wan[0].control[0] || igd->firewall.control[0] ? 0 : ERR_EFORMAT;
}
