/* terminal: its settings while a line is typed, and the output that must not break that line.
 *
 * Provides  modes that are put back on every way out; stdout and stderr that write above the line
 * Uses      glibc's fopencookie, libuv's clock
 * Owns      the terminal's settings between terminal_edit and terminal_leave; from terminal_open
 *           on, what the program writes to stdout and stderr
 * Only the program has it. It knows nothing of how a line is drawn: bindings/line.c does. */
#ifndef BINDINGS_TERMINAL_H
#define BINDINGS_TERMINAL_H

#include <lua.h>
#include <stdbool.h>
#include <stdio.h>

#define TERMINAL_CLEAR_BELOW "\033[J" /* from the cursor on */

/* Opens the terminal of standard input anew (libuv sets flags on it that other programs would
 * see) and puts streams of ours in the place of stdout and stderr. What goes to the terminal while
 * a line is typed is given to `show`, as whole lines where that can be. */
int terminal_open(lua_State *L, void (*show)(const char *bytes, size_t size));

int terminal_fd(void);
FILE *terminal_file(void);
int terminal_width(void); /* columns */

/* Ends the line on the screen if the last output did not. */
void terminal_end_line(void);

/* A line is about to be typed: remembers the settings, and begins at the left. */
void terminal_prepare(void);

/* It is being typed, with settings that are in effect now: they are put back after Ctrl-Z, and
 * those before them on every way out. `paste_marked`: the terminal was told to mark what is pasted.
 */
void terminal_edit(bool paste_marked);

/* Whether text stands behind the cursor that is no part of the line: it goes when the line is left
 * on one of those ways. */
void terminal_followed(bool on);

/* It is no longer typed, and the settings are as before. */
void terminal_leave(void);
bool terminal_editing(void);

/* From the one to the other, keys are waited for, which the terminal neither shows nor holds back;
 * what is written goes out as ever. Either may be called again. */
void terminal_await_keys(void);
void terminal_leave_keys(void);

void terminal_write(const char *bytes, size_t size);

/* Shows, or writes when no line is typed, the output that was held back; false when there was none.
 */
bool terminal_flush(void);

/* Gives the terminal back as it was and writes what was held back; safe within a signal's handler,
 * and when no line is typed. */
void terminal_restore(void);

#endif
