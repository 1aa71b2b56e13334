/* hint: faint text behind the line that is typed, of what may come next.
 *
 * Provides  its drawing and removal, and the keys that take it into the line
 * Uses      readline, bindings/terminal
 * Owns      the text of the hint. Readline knows nothing of it: it is hidden before readline draws,
 *           and drawn again after that
 * Only the program has it. */
#ifndef BINDINGS_HINT_H
#define BINDINGS_HINT_H

#include <stdbool.h>

/* The keys that move right, or to the end of the line, take the hint where there is nothing else to
 * move to. After rl_initialize. */
void hint_open(void);

/* Whether the line has room for one now: the cursor is at its end, it fits into a row, and neither
 * a search nor half a key nor further input is under way. */
bool hint_fits(void);

/* Draws the text behind the line, if both fit into the row. `takeable`: the keys take it. */
void hint_show(const char *text, bool takeable);

void hint_hide(void);   /* from the screen, until it is drawn again */
void hint_redraw(void); /* what was hidden, where the line is now */
void hint_forget(void); /* hides it, and the keys no longer take it */

#endif
