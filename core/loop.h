/* loop: the one rule about libuv that all of core/ shares.
 *
 * Provides  container_of, by which a callback finds the struct that its handle lies in
 * Uses      libuv
 * The loop is luv's too, and scripts may walk it. luv keeps its own data in handle->data, so ours
 * leave that field NULL (structs with handles come from calloc) and luv.walk passes them over. */
#ifndef CORE_LOOP_H
#define CORE_LOOP_H

#include <stddef.h>
#include <uv.h>

#define container_of(pointer, type, member)                                                        \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

#endif
