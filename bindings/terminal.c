#include "bindings/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#include <uv.h>

enum { HELD_SIZE = 1 << 16 };             /* output that waits to be shown above the line */
static const uint64_t HELD_NS = 50000000; /* how long it waits while the loop is kept busy */

/* What is done with the terminal: a line is typed, or one key is waited for. */
enum { NOTHING, LINE, KEY };

/* stdout or stderr, as the rest of the program has it. */
struct stream {
    int fd;
    bool terminal;
    FILE *file;
};

static struct {
    int fd;
    FILE *file; /* of the same */
    struct stream out, err;
    void (*show)(const char *bytes, size_t size);
    volatile sig_atomic_t editing, followed;
    bool fresh; /* the last byte written was the end of a line */
    bool paste_marked;
    struct termios before, edit;
    char held[HELD_SIZE];
    size_t held_size;
    uint64_t held_since_ns;
} terminal = {.fd = -1, .fresh = true};

/* Writes all, also to a file that another program made non-blocking. */
static bool write_all(int fd, const char *bytes, size_t size) {
    while (size > 0) {
        ssize_t count = write(fd, bytes, size);
        if (count >= 0) {
            bytes += count;
            size -= (size_t)count;
        } else if (errno == EAGAIN) {
            poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, -1);
        } else if (errno != EINTR) {
            return false;
        }
    }
    return true;
}

void terminal_write(const char *bytes, size_t size) {
    write_all(terminal.fd, bytes, size);
}

/* --- settings and signals -------------------------------------------------------------------- */

static void mark_paste(bool on) {
    if (terminal.paste_marked)
        write_all(terminal.fd, on ? "\033[?2004h" : "\033[?2004l\r", on ? 8 : 9);
}

static void clear_what_follows(void) {
    if (terminal.followed)
        write_all(terminal.fd, TERMINAL_CLEAR_BELOW, sizeof TERMINAL_CLEAR_BELOW - 1);
    terminal.followed = false;
}

void terminal_restore(void) {
    if (!terminal.editing)
        return;
    bool typed = terminal.editing == LINE;
    terminal.editing = NOTHING;
    clear_what_follows();
    mark_paste(false);
    tcsetattr(terminal.fd, TCSANOW, &terminal.before);
    if (typed)
        terminal_write("\n", 1);
    terminal_flush();
}

/* Ctrl-Z: the shell gets its terminal back as it was. */
static void suspended(int signal_number) {
    int error = errno;
    if (terminal.editing) {
        clear_what_follows();
        mark_paste(false);
        tcsetattr(terminal.fd, TCSANOW, &terminal.before);
    }
    struct sigaction ours, otherwise = {.sa_handler = SIG_DFL};
    sigaction(signal_number, &otherwise, &ours);
    sigset_t set, before;
    sigemptyset(&set);
    sigaddset(&set, signal_number);
    raise(signal_number);
    sigprocmask(SIG_UNBLOCK, &set, &before); /* stops here */
    sigprocmask(SIG_SETMASK, &before, NULL);
    sigaction(signal_number, &ours, NULL);
    if (terminal.editing) {
        tcsetattr(terminal.fd, TCSANOW, &terminal.edit);
        mark_paste(true);
    }
    errno = error;
}

static void deadly(int signal_number) {
    terminal_restore();
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

static const int deadly_signals[] = {SIGQUIT, SIGHUP, SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL};

/* A handler that a script has set stays. */
static void replace_handler(int signal_number, void (*from)(int), void (*to)(int)) {
    struct sigaction now, action = {.sa_handler = to, .sa_flags = SA_RESTART};
    if (sigaction(signal_number, NULL, &now) == 0 && now.sa_handler == from)
        sigaction(signal_number, &action, NULL);
}

static void catch_signals(bool on) {
    for (size_t i = 0; i < sizeof deadly_signals / sizeof deadly_signals[0]; i++)
        replace_handler(deadly_signals[i], on ? SIG_DFL : deadly, on ? deadly : SIG_DFL);
    replace_handler(SIGTSTP, on ? SIG_DFL : suspended, on ? suspended : SIG_DFL);
}

void terminal_end_line(void) {
    fflush(terminal.out.file);
    if (!terminal.fresh)
        terminal_write("\n", 1);
    terminal.fresh = true;
}

void terminal_prepare(void) {
    terminal_end_line();
    tcgetattr(terminal.fd, &terminal.before);
}

void terminal_edit(bool paste_marked) {
    tcgetattr(terminal.fd, &terminal.edit);
    terminal.paste_marked = paste_marked;
    terminal.editing = LINE;
    catch_signals(true);
}

void terminal_await_keys(void) {
    if (terminal.editing == KEY)
        return;
    tcgetattr(terminal.fd, &terminal.before);
    terminal.edit = terminal.before;
    terminal.edit.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    terminal.edit.c_cc[VMIN] = 1;
    terminal.edit.c_cc[VTIME] = 0;
    tcsetattr(terminal.fd, TCSANOW, &terminal.edit);
    terminal.paste_marked = false;
    terminal.editing = KEY;
    catch_signals(true);
}

void terminal_leave_keys(void) {
    if (terminal.editing != KEY)
        return;
    tcsetattr(terminal.fd, TCSANOW, &terminal.before);
    terminal_leave();
}

void terminal_followed(bool on) {
    terminal.followed = on;
}

void terminal_leave(void) {
    terminal.editing = NOTHING;
    catch_signals(false);
}

bool terminal_editing(void) {
    return terminal.editing == LINE;
}

/* --- output ---------------------------------------------------------------------------------- */

bool terminal_flush(void) {
    size_t size = terminal.held_size;
    terminal.held_size = 0;
    if (size == 0)
        return false;
    if (terminal.editing == LINE) {
        terminal.show(terminal.held, size);
    } else {
        terminal_write(terminal.held, size);
        terminal.fresh = terminal.held[size - 1] == '\n';
    }
    return true;
}

/* What comes within one turn of the loop is shown at once, unless it is much or the turn is long.
 */
static ssize_t on_output(void *cookie, const char *bytes, size_t size) {
    const struct stream *stream = cookie;
    if (size == 0)
        return 0;
    if (terminal.editing != LINE || !stream->terminal) {
        if (stream->terminal)
            terminal.fresh = bytes[size - 1] == '\n';
        return write_all(stream->fd, bytes, size) ? (ssize_t)size : 0;
    }
    if (size == 1 && bytes[0] == '\a') { /* readline rings so; it is no line of its own */
        terminal_write(bytes, size);
        return 1;
    }
    if (size > sizeof terminal.held - terminal.held_size)
        terminal_flush();
    if (size > sizeof terminal.held) {
        terminal.show(bytes, size);
        return (ssize_t)size;
    }
    uint64_t now = uv_hrtime();
    if (terminal.held_size == 0)
        terminal.held_since_ns = now;
    memcpy(terminal.held + terminal.held_size, bytes, size);
    terminal.held_size += size;
    if (now - terminal.held_since_ns > HELD_NS)
        terminal_flush();
    return (ssize_t)size;
}

/* Puts our stream in the place of stdout or stderr, for C (glibc lets both be set) and for Lua. */
static int take_over(lua_State *L, struct stream *stream, FILE **file, const char *name, int mode) {
    stream->fd = fileno(*file);
    stream->terminal = isatty(stream->fd);
    fflush(*file);
    stream->file = fopencookie(stream, "w", (cookie_io_functions_t){.write = on_output});
    if (!stream->file)
        return UV_ENOMEM;
    setvbuf(stream->file, NULL, mode, 0);
    lua_getglobal(L, "io");
    lua_getfield(L, -1, name);
    luaL_Stream *lua_stream = luaL_testudata(L, -1, LUA_FILEHANDLE);
    if (lua_stream && lua_stream->f == *file)
        lua_stream->f = stream->file;
    lua_pop(L, 2);
    *file = stream->file;
    return 0;
}

int terminal_open(lua_State *L, void (*show)(const char *bytes, size_t size)) {
    const char *name = ttyname(STDIN_FILENO);
    if (name)
        terminal.fd = open(name, O_RDWR | O_CLOEXEC | O_NOCTTY);
    if (terminal.fd < 0)
        terminal.fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0);
    if (terminal.fd < 0 || !(terminal.file = fdopen(terminal.fd, "r+")))
        return uv_translate_sys_error(errno);
    terminal.show = show;
    atexit(terminal_restore);
    int status = take_over(L, &terminal.out, &stdout, "stdout", _IOLBF);
    return status == 0 ? take_over(L, &terminal.err, &stderr, "stderr", _IONBF) : status;
}

int terminal_fd(void) {
    return terminal.fd;
}

FILE *terminal_file(void) {
    return terminal.file;
}

int terminal_width(void) {
    struct winsize size;
    bool known = ioctl(terminal.fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    return known ? size.ws_col : 80;
}
