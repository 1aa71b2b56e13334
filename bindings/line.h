/* line: the line that is being typed at the terminal, core.line.
 *
 * Provides  core.line to the REPL, and line_report to the program
 * Uses      readline's callback interface, bindings/hint, bindings/terminal, bindings/wait
 * Owns      readline, which keeps its state in globals: there is one line at a time
 * Only the program has it.
 *
 *     line.open { complete = f(typed, word) -> list, prompt = f() -> text when tasks have ended or
 *                 begun, report = f(kind, what), stuck = f() when nothing can wake the task that
 *                 reads no line, hint = f(typed) when the typing rests and the line has room }
 *     line.read(prompt) -> text; nil, message, "EOF", "EINTR" (clear was called) or "E2BIG"
 *     line.keys(): from here on none is shown, until line.no_keys() or read
 *     line.key(timeout) -> whether one was pressed
 *     line.clear() -> count of the bytes that were typed; nil when no line is being typed
 *     line.hint(typed, text, takeable) shows it behind the line, if that is still what was typed
 *     line.recall(typed) -> the newest line in memory that begins so and goes on, or nil
 *     line.remember(text), line.width() -> columns, line.fresh() ends a line that print left open
 */
#ifndef BINDINGS_LINE_H
#define BINDINGS_LINE_H

#include <lua.h>
#include <stdbool.h>

int open_line(lua_State *L);

/* Tells the REPL's report function of the error on top of the stack ("callback" is its kind);
 * false when there is no REPL. Leaves the stack as it was. */
bool line_report(lua_State *L, const char *kind);

#endif
