#include "bindings/hint.h"

#include "bindings/terminal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <wchar.h>

#include <readline/readline.h>

enum {
    HINT_SIZE = 1024,
    MODE_COLUMNS = 16, /* that readline's mark of its mode may take in front of the prompt */
    SPARE_COLUMNS = 2, /* the mark of a changed line, and the place of the cursor */
};

static const char MARKS[] = {RL_PROMPT_START_IGNORE, RL_PROMPT_END_IGNORE, '\0'};
static const char MARK_OF_END[] = {RL_PROMPT_END_IGNORE, '\0'};

/* The line is not drawn as prompt and text, or a key is not whole. */
static const unsigned long UNFIT = RL_STATE_ISEARCH | RL_STATE_NSEARCH | RL_STATE_SEARCH |
                                   RL_STATE_NUMERICARG | RL_STATE_COMPLETING | RL_STATE_VIMOTION |
                                   RL_STATE_CHARSEARCH | RL_STATE_MULTIKEY | RL_STATE_METANEXT;

static struct {
    char text[HINT_SIZE];
    bool takeable, shown;
} hint;

/* Columns that the text takes; -1 when it has something in it whose place on the screen is hard to
 * say. */
static int columns_of(const char *text, size_t length) {
    mbstate_t state = {0};
    int columns = 0;
    while (length > 0) {
        wchar_t character;
        size_t size = mbrtowc(&character, text, length, &state);
        int width = size == 0 || size > length ? -1 : wcwidth(character);
        if (width < 0)
            return -1;
        columns += width;
        text += size;
        length -= size;
    }
    return columns;
}

/* The same of a prompt, which has marks around what is not seen. */
static int columns_of_prompt(const char *prompt) {
    int columns = 0;
    while (*prompt) {
        size_t seen = strcspn(prompt, MARKS);
        int width = columns_of(prompt, seen);
        if (width < 0)
            return -1;
        columns += width;
        prompt += seen;
        if (*prompt == RL_PROMPT_START_IGNORE)
            prompt += strcspn(prompt, MARK_OF_END);
        prompt += *prompt != '\0';
    }
    return columns;
}

/* Columns that are left in the row behind the line; less than one when none are. */
static int room(void) {
    int rows, columns;
    const char *moded = rl_variable_value("show-mode-in-prompt");
    int prompt = columns_of_prompt(rl_prompt);
    int line = columns_of(rl_line_buffer, (size_t)rl_end);
    rl_get_screen_size(&rows, &columns);
    if (prompt < 0 || line < 0)
        return 0;
    return columns - prompt - line - SPARE_COLUMNS -
           (moded && strcmp(moded, "on") == 0 ? MODE_COLUMNS : 0);
}

static bool more_input(void) {
    int waiting = 0;
    return ioctl(terminal_fd(), FIONREAD, &waiting) == 0 && waiting > 0;
}

bool hint_fits(void) {
    return terminal_editing() && rl_end > 0 && rl_point == rl_end && !RL_ISSTATE(UNFIT) &&
           rl_prompt && rl_display_prompt == rl_prompt && rl_end < 4 * HINT_SIZE && !more_input() &&
           room() > 0;
}

void hint_hide(void) {
    if (!hint.shown)
        return;
    fputs(TERMINAL_CLEAR_BELOW, rl_outstream); /* below, since a narrowed terminal wraps the row */
    fflush(rl_outstream);
    hint.shown = false;
    terminal_followed(false);
}

void hint_forget(void) {
    hint_hide();
    hint.text[0] = '\0';
}

void hint_redraw(void) {
    int columns = columns_of(hint.text, strlen(hint.text));
    if (RL_ISSTATE(RL_STATE_MULTIKEY)) /* it is drawn, or taken, when the key is whole */
        return;
    if (columns <= 0 || !hint_fits() || columns > room()) {
        hint.text[0] = '\0'; /* what is not seen is not taken */
        return;
    }
    hint.shown = true;
    terminal_followed(true);
    fprintf(rl_outstream, "\033[2m%s\033[0m\033[%dD", hint.text, columns);
    fflush(rl_outstream);
}

void hint_show(const char *text, bool takeable) {
    size_t length = strlen(text);
    hint_forget();
    if (length == 0 || length >= sizeof hint.text)
        return;
    memcpy(hint.text, text, length + 1);
    hint.takeable = takeable;
    hint_redraw();
}

/* Puts it into the line; false when there is none. */
static bool take(void) {
    if (!hint.text[0] || !hint.takeable || rl_point != rl_end)
        return false;
    rl_insert_text(hint.text);
    hint_forget();
    return true;
}

static int go_right(int count, int key) {
    return take() ? 0 : rl_forward_char(count, key);
}

static int go_to_end(int count, int key) {
    return take() ? 0 : rl_end_of_line(count, key);
}

/* All keys that call the one function, call the other. */
static void rebind(const char *map_name, rl_command_func_t *from, rl_command_func_t *to) {
    Keymap map = rl_get_keymap_by_name(map_name);
    char **keys = rl_invoking_keyseqs_in_map(from, map);
    for (size_t i = 0; keys && keys[i]; i++) {
        rl_bind_keyseq_in_map(keys[i], to, map);
        free(keys[i]);
    }
    free(keys);
}

void hint_open(void) {
    static const char *const maps[] = {"emacs", "vi-insert"};
    for (size_t i = 0; i < sizeof maps / sizeof maps[0]; i++) {
        rebind(maps[i], rl_forward_char, go_right);
        rebind(maps[i], rl_end_of_line, go_to_end);
    }
}
