/* pty: runs a program in a pseudo-terminal, for the specs: what comes on standard input is typed
 * there, what is shown there goes to standard output. "ROWS COLUMNS" lines on file descriptor 3
 * change its size. Ends with the program's status, 128 + N after signal N; when it is killed
 * itself, the program is told that its terminal is gone.
 *
 *     pty ROWS COLUMNS PROGRAM [ARG...] */
#include <errno.h>
#include <poll.h>
#include <pty.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CONTROL = 3 };

/* Copies what is there; false at the end. A terminal whose program has ended gives EIO. */
static bool copy(int from, int to) {
    char bytes[4096];
    ssize_t count = read(from, bytes, sizeof bytes), done = 0;
    if (count < 0)
        return errno == EINTR || errno == EAGAIN;
    while (done < count) {
        ssize_t written = write(to, bytes + done, (size_t)(count - done));
        if (written < 0 && errno != EINTR)
            return false;
        done += written > 0 ? written : 0;
    }
    return count > 0;
}

static bool resize(int terminal) {
    char text[64];
    ssize_t count = read(CONTROL, text, sizeof text - 1);
    if (count <= 0)
        return false;
    text[count] = '\0';
    struct winsize size = {0};
    if (sscanf(text, "%hu %hu", &size.ws_row, &size.ws_col) == 2)
        ioctl(terminal, TIOCSWINSZ, &size);
    return true;
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: pty ROWS COLUMNS PROGRAM [ARG...]\n");
        return 2;
    }
    struct winsize size = {.ws_row = (unsigned short)atoi(argv[1]),
                           .ws_col = (unsigned short)atoi(argv[2])};
    int terminal, status = 0;
    pid_t child = forkpty(&terminal, NULL, NULL, &size);
    if (child < 0) {
        perror("pty");
        return 1;
    }
    if (child == 0) {
        close(CONTROL);
        execvp(argv[3], argv + 3);
        perror(argv[3]);
        _exit(127);
    }
    struct pollfd files[] = {
        {STDIN_FILENO, POLLIN, 0}, {CONTROL, POLLIN, 0}, {terminal, POLLIN, 0}};
    for (bool open = true; open;) {
        if (poll(files, 3, -1) < 0 && errno != EINTR)
            break;
        if (files[0].revents && !copy(STDIN_FILENO, terminal))
            files[0].fd = -1;
        if (files[1].revents && !resize(terminal))
            files[1].fd = -1;
        if (files[2].revents)
            open = copy(terminal, STDOUT_FILENO);
    }
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
