#include "bindings/line.h"

#include "bindings/fail.h"
#include "bindings/hint.h"
#include "bindings/task.h"
#include "bindings/terminal.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <readline/history.h>
#include <readline/readline.h>

enum {
    LINE_LIMIT = 1 << 18, /* bytes of one typed line */
    HISTORY_LIMIT = 1000, /* lines that arrow up finds */
    CANDIDATES = 200,     /* that completion shows */
};

static struct {
    struct runtime *runtime;
    uv_poll_t poll;
    uv_prepare_t before_sleep; /* keeps the loop alive while the REPL is there */
    uv_signal_t resized, continued;
    struct wait *reading; /* the task's that reads the line */
    struct wait *keying;  /* or that waits for a key */
    char *text;           /* the line, once it was entered */
    int status;
    unsigned tasks; /* that were alive when the prompt was made */
    bool open, ended, paste_marked;
} line;

static const char functions_key, handles_key;

/* --- what is seen ---------------------------------------------------------------------------- */

/* Output above the line that is typed. */
static void show(const char *bytes, size_t size) {
    hint_hide();
    rl_clear_visible_line();
    fflush(rl_outstream);
    terminal_write(bytes, size);
    if (bytes[size - 1] != '\n')
        terminal_write("\n", 1);
    rl_on_new_line();
    rl_redisplay();
    hint_redraw();
}

static void on_resized(uv_signal_t *handle, int signal_number) {
    (void)handle, (void)signal_number;
    if (terminal_editing()) {
        hint_hide();
        rl_resize_terminal();
        hint_redraw();
    }
}

static void on_continued(uv_signal_t *handle, int signal_number) {
    (void)handle, (void)signal_number;
    if (terminal_editing()) {
        hint_hide();
        rl_reset_screen_size();
        rl_forced_update_display();
        hint_redraw();
    }
}

/* --- the functions that open was given ------------------------------------------------------- */

/* Calls the one of that name with the arguments on top of the stack, which go; leaves one result.
 * One that is not there, or fails, leaves nil and gives false. */
static bool call(lua_State *L, const char *name, int arguments) {
    int base = lua_gettop(L) - arguments;
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &functions_key) == LUA_TTABLE &&
        lua_getfield(L, -1, name) == LUA_TFUNCTION) {
        lua_insert(L, base + 1);
        lua_settop(L, base + 1 + arguments);
        if (lua_pcall(L, arguments, 1, 0) == LUA_OK)
            return true;
    }
    lua_settop(L, base);
    lua_pushnil(L);
    return false;
}

bool line_report(lua_State *L, const char *kind) {
    lua_pushstring(L, kind);
    lua_pushvalue(L, -2);
    bool told = call(L, "report", 2);
    lua_pop(L, 1);
    return told;
}

static void on_failure(struct runtime *runtime, struct task *task) {
    lua_State *L = runtime->main;
    task_push(L, task);
    line_report(L, "task");
    lua_pop(L, 1);
}

/* The prompt tells of the tasks, so it changes when one has ended or begun. */
static void renew_prompt(lua_State *L) {
    if (!terminal_editing() || line.tasks == line.runtime->live_count)
        return;
    line.tasks = line.runtime->live_count;
    if (call(L, "prompt", 0) && lua_isstring(L, -1)) {
        hint_hide();
        rl_clear_visible_line();
        rl_set_prompt(lua_tostring(L, -1));
        rl_on_new_line();
        rl_redisplay();
        hint_redraw();
    }
    lua_pop(L, 1);
}

/* Before the loop sleeps: shows what was written, and sees that nothing can wake what runs. */
static void on_before_sleep(uv_prepare_t *handle) {
    lua_State *L = line.runtime->main;
    if (terminal_flush())
        renew_prompt(L);
    uv_unref((uv_handle_t *)handle);
    bool alive = uv_loop_alive(handle->loop) != 0;
    uv_ref((uv_handle_t *)handle);
    if (!alive && !line.reading) {
        call(L, "stuck", 0);
        lua_pop(L, 1);
    }
}

/* Gives readline the list that is on top of the main thread's stack. */
static char *next_candidate(const char *text, int state) {
    static lua_Integer place;
    (void)text;
    lua_State *L = line.runtime->main;
    place = state == 0 ? 1 : place + 1;
    lua_rawgeti(L, -1, place);
    const char *candidate = lua_tostring(L, -1);
    char *copy = candidate && place <= CANDIDATES ? strdup(candidate) : NULL;
    lua_pop(L, 1);
    return copy;
}

static char **complete(const char *text, int start, int end) {
    (void)start;
    lua_State *L = line.runtime->main;
    rl_attempted_completion_over = 1; /* no names of files */
    rl_completion_append_character = '\0';
    lua_pushlstring(L, rl_line_buffer, (size_t)end);
    lua_pushstring(L, text);
    char **matches = NULL;
    if (call(L, "complete", 2) && lua_istable(L, -1))
        matches = rl_completion_matches(text, next_candidate);
    lua_pop(L, 1);
    return matches;
}

/* Asks for a hint; one that is there already stays for a key of which a part has come. */
static void ask_for_hint(void) {
    lua_State *L = line.runtime->main;
    if (RL_ISSTATE(RL_STATE_MULTIKEY))
        return;
    hint_forget();
    if (!hint_fits())
        return;
    lua_pushlstring(L, rl_line_buffer, (size_t)rl_end);
    call(L, "hint", 1);
    lua_pop(L, 1);
}

/* --- reading --------------------------------------------------------------------------------- */

static void on_line(char *text);

static void start_editing(const char *prompt) {
    terminal_leave_keys();
    terminal_prepare();
    rl_reset_screen_size();
    rl_eof_found =
        0; /* or else each line after one that Ctrl-D ended would have an empty one below */
    rl_callback_handler_install(prompt, on_line);
    const char *marked = rl_variable_value("enable-bracketed-paste");
    line.paste_marked = marked && strcmp(marked, "on") == 0;
    terminal_edit(line.paste_marked);
    line.tasks = line.runtime->live_count;
    line.ended = false;
}

static void stop_editing(void) {
    hint_forget();
    uv_poll_stop(&line.poll);
    rl_callback_handler_remove();
    terminal_leave();
}

/* Ends the line before it was entered; what was typed stays to be seen. */
static void abandon(int status) {
    hint_forget();
    terminal_flush();
    rl_free_line_state();
    rl_callback_sigcleanup();
    stop_editing();
    terminal_write("\n", 1);
    line.status = status;
}

/* Comes from readline, which goes on a little after it: the task is woken later. */
static void on_line(char *text) {
    stop_editing();
    if (!text && !line.paste_marked) /* readline ends the line only then */
        terminal_write("\n", 1);
    terminal_flush();
    line.text = text;
    line.status = text ? 0 : UV_EOF;
    line.ended = true;
}

static void on_readable(uv_poll_t *poll, int status, int events) {
    (void)poll, (void)events;
    if (status < 0) {
        abandon(UV_EOF);
    } else {
        hint_hide();
        rl_callback_read_char();
        if (!line.ended && rl_end > LINE_LIMIT) {
            abandon(UV_E2BIG);
        } else if (!line.ended) {
            ask_for_hint();
            return;
        }
    }
    struct wait *wait = line.reading;
    line.reading = NULL;
    wait_wake(wait, line.status);
}

static void detach(void *arg) {
    (void)arg;
    line.reading = NULL;
    abandon(UV_ECANCELED);
}

static int have_line(lua_State *L, int status, lua_KContext ctx) {
    (void)ctx;
    if (status == UV_E2BIG)
        return push_refusal(L, status, "a line of more than %d bytes was dropped", LINE_LIMIT);
    if (status != 0)
        return push_failure(L, status, "reading a line");
    lua_pushstring(L, line.text);
    free(line.text);
    line.text = NULL;
    return 1;
}

static int read_(lua_State *L) {
    const char *prompt = luaL_checkstring(L, 1);
    if (!line.open || line.reading || line.keying)
        return luaL_error(L, line.open ? "a line is being read already" : "line.open comes first");
    struct wait *wait = wait_begin(L);
    start_editing(prompt);
    int status = uv_poll_start(&line.poll, UV_READABLE, on_readable);
    if (status != 0) {
        stop_editing();
        return push_failure(L, status, "reading the terminal");
    }
    line.reading = wait;
    return wait_park(L, wait, -1, detach, NULL, have_line, 0);
}

/* --- a single key ---------------------------------------------------------------------------- */

static void stop_keying(void *arg) {
    (void)arg;
    uv_poll_stop(&line.poll);
    line.keying = NULL;
}

static void on_key(uv_poll_t *poll, int status, int events) {
    char bytes[64]; /* some keys send several, which come together */
    struct wait *wait = line.keying;
    (void)poll, (void)events;
    if (status == 0 && read(terminal_fd(), bytes, sizeof bytes) <= 0)
        status = UV_EOF;
    stop_keying(NULL);
    wait_wake(wait, status);
}

static int have_key(lua_State *L, int status, lua_KContext ctx) {
    (void)ctx;
    lua_pushboolean(L, status != UV_ETIMEDOUT);
    return 1;
}

static int key(lua_State *L) {
    double timeout_s = check_timeout(L, 1, -1);
    if (!line.open || line.reading || line.keying)
        return luaL_error(L, line.open ? "the terminal is read already" : "line.open comes first");
    struct wait *wait = wait_begin(L);
    terminal_await_keys();
    int status = uv_poll_start(&line.poll, UV_READABLE, on_key);
    if (status != 0)
        return push_failure(L, status, "reading the terminal");
    line.keying = wait;
    return wait_park(L, wait, timeout_s, stop_keying, NULL, have_key, 0);
}

static int keys(lua_State *L) {
    if (!line.open || line.reading)
        return luaL_error(L, line.open ? "a line is being read" : "line.open comes first");
    terminal_await_keys();
    return 0;
}

static int no_keys(lua_State *L) {
    (void)L;
    terminal_leave_keys();
    return 0;
}

static int clear(lua_State *L) {
    struct wait *wait = line.reading;
    if (!wait)
        return 0;
    lua_pushinteger(L, rl_end);
    hint_forget();
    rl_point = rl_end; /* the mark goes behind all that was typed */
    rl_redisplay();
    fputs("^C", rl_outstream);
    fflush(rl_outstream);
    line.reading = NULL;
    abandon(UV_EINTR);
    wait_post(wait, UV_EINTR);
    return 1;
}

static int remember(lua_State *L) {
    add_history(luaL_checkstring(L, 1));
    return 0;
}

static int recall(lua_State *L) {
    size_t length;
    const char *typed = luaL_checklstring(L, 1, &length);
    HIST_ENTRY **entries = history_list();
    for (int i = history_length; entries && i > 0; i--) {
        const char *text = entries[i - 1]->line;
        if (strncmp(text, typed, length) == 0 && text[length]) {
            lua_pushstring(L, text);
            return 1;
        }
    }
    return 0;
}

static int hint(lua_State *L) {
    size_t length;
    const char *typed = luaL_checklstring(L, 1, &length), *text = luaL_checkstring(L, 2);
    if (line.reading && length == (size_t)rl_end && memcmp(typed, rl_line_buffer, length) == 0)
        hint_show(text, lua_toboolean(L, 3));
    return 0;
}

static int fresh(lua_State *L) {
    (void)L;
    terminal_end_line();
    return 0;
}

static int width(lua_State *L) {
    lua_pushinteger(L, terminal_width());
    return 1;
}

/* --- opening --------------------------------------------------------------------------------- */

static void closed(uv_handle_t *handle) {
    (void)handle;
}

static int close_(lua_State *L) {
    (void)L;
    terminal_restore();
    uv_handle_t *handles[] = {(uv_handle_t *)&line.poll, (uv_handle_t *)&line.before_sleep,
                              (uv_handle_t *)&line.resized, (uv_handle_t *)&line.continued};
    for (size_t i = 0; i < sizeof handles / sizeof handles[0]; i++)
        uv_close(handles[i], closed);
    return 0;
}

static int open_handles(uv_loop_t *loop) {
    int status = uv_poll_init(loop, &line.poll, terminal_fd());
    if (status != 0)
        return status;
    fcntl(terminal_fd(), F_SETFL, fcntl(terminal_fd(), F_GETFL) & ~O_NONBLOCK);
    uv_signal_init(loop, &line.resized);
    uv_signal_init(loop, &line.continued);
    uv_prepare_init(loop, &line.before_sleep);
    uv_signal_start(&line.resized, on_resized, SIGWINCH);
    uv_signal_start(&line.continued, on_continued, SIGCONT);
    uv_prepare_start(&line.before_sleep, on_before_sleep);
    uv_unref((uv_handle_t *)&line.resized);
    uv_unref((uv_handle_t *)&line.continued);
    return 0;
}

static void open_readline(void) {
    rl_readline_name = "p2pd-lua";
    rl_instream = rl_outstream = terminal_file();
    rl_catch_signals = 0;
    rl_catch_sigwinch = 0;
    rl_change_environment = 0;
    rl_attempted_completion_function = complete;
    rl_completer_word_break_characters = " \t\n\"\\'`@$><=;|&{}()[].:+-*/%^#~,!?";
    rl_initialize();
    hint_open();
    rl_completion_query_items = -1; /* a question would keep the loop from running */
    rl_variable_bind("page-completions", "off");
    using_history();
    stifle_history(HISTORY_LIMIT);
}

static int open_(lua_State *L) {
    static const char *const keys[] = {"complete", "hint", "prompt", "report", "stuck", NULL};
    check_options(L, 1, keys);
    if (line.open)
        return luaL_error(L, "the line is open already");
    line.runtime = runtime_of(L);
    int status = terminal_open(L, show);
    if (status == 0)
        status = open_handles(line.runtime->loop);
    if (status != 0)
        return push_failure(L, status, "the terminal cannot be used");
    lua_newuserdatauv(L, 0, 0); /* closes the handles when the Lua state ends */
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, close_);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &handles_key);
    lua_pushvalue(L, 1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &functions_key);
    open_readline();
    line.runtime->on_failure = on_failure;
    line.open = true;
    lua_pushboolean(L, 1);
    return 1;
}

int open_line(lua_State *L) {
    luaL_newlib(L, ((const luaL_Reg[]){{"open", open_},
                                       {"read", read_},
                                       {"clear", clear},
                                       {"key", key},
                                       {"keys", keys},
                                       {"no_keys", no_keys},
                                       {"hint", hint},
                                       {"remember", remember},
                                       {"recall", recall},
                                       {"fresh", fresh},
                                       {"width", width},
                                       {NULL, NULL}}));
    return 1;
}
