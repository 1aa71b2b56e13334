/* machine: what this computer is called in addresses, the same for all of its nodes.
 *
 * Provides  the machine id
 * Uses      crypto, bytes, the system's files
 * It is hashed, so that the system's own id stays on the machine. */
#ifndef CORE_MACHINE_H
#define CORE_MACHINE_H

#include <stddef.h>

#define MACHINE_ID_SIZE 65 /* lower-case hex of 32 bytes, and the final NUL */

/* HMAC-SHA256 with key "p2pd" over the text of /etc/machine-id or /var/lib/dbus/machine-id; where
 * there is neither, SHA-256 of "p2pd <host name> <default interface> <MAC>". */
void machine_id(char out[MACHINE_ID_SIZE]);

/* The same for a given system id. */
void machine_id_of(const char *system_id, size_t length, char out[MACHINE_ID_SIZE]);

#endif
