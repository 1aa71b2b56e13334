/* socket: a connected TCP socket on its way from what opened it to the pipe that it becomes.
 *
 * Provides  the userdata, to what opens connections in other ways than pipes do (punch, turn)
 * Uses      nothing of ours
 * Owns      the descriptor, until it is taken; then the taker's */
#ifndef BINDINGS_SOCKET_H
#define BINDINGS_SOCKET_H

#include <lua.h>

/* Pushes a userdata that owns the descriptor: closed by :close(), __close or __gc. What is known of
 * the connection goes into the table that is its user value 1, and is read as its fields; `remote`
 * (as "192.0.2.7:80") becomes the pipe's where the descriptor's own peer is somebody between. */
void push_socket(lua_State *L, int fd);

/* The descriptor, which is the caller's from now on; -1 when it was closed or taken before. Throws
 * when there is no socket at `index`. */
int take_socket(lua_State *L, int index);

void open_socket(lua_State *L);

#endif
