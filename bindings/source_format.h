/* source_format: what compile.c writes and source.c loads: the release of Lua that made it, as text
 * that ends in a zero, and then what lua_dump gives. Lua promises nothing of a dump to other
 * releases. */
#ifndef BINDINGS_SOURCE_FORMAT_H
#define BINDINGS_SOURCE_FORMAT_H

#include <lua.h>
#include <stdbool.h>
#include <string.h>

#define SOURCE_RELEASE_SIZE(release) (strlen(release) + 1)

/* By which errors name a file of the tree. */
static inline const char *source_name(const char *path) {
    return strncmp(path, "lua/", 4) == 0 ? path + 4 : path;
}

#endif
