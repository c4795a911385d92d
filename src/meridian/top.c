/* top.c - `meridian top`: what `meridian status` prints, drawn again each second, until `q`.
 *
 * Each picture is made by a child that writes into a pipe, so a node that hangs delays a picture
 * and no key, and whatever goes wrong in it is shown as it would be by `status`. A picture that is
 * larger than the terminal is cut, and scrolled by the keys. Where stdout is no terminal, there is
 * one picture. The terminal is given back as it was, also after a signal. */
#include "meridian/cli.h"
#include "term/term.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum {
        EVERY_MS = 1000,
        PICTURE_BYTES_MAX = 1 << 20,
        KEY_UP = 'k',
        KEY_DOWN = 'j',
        KEY_QUIT = 'q',
};

struct picture {
        char *text;
        size_t len;
};

struct top {
        const struct cli *cli;
        struct picture shown;
        struct picture next; /* as far as it has come */
        pid_t child;         /* 0: none */
        int pipe;            /* its output; -1: none */
        uint64_t begun_ms;
        size_t first; /* the line of the picture at the top */
};

static volatile sig_atomic_t ended;

static void on_signal(int number)
{
        (void)number;
        ended = 1;
}

static uint64_t now_ms(void)
{
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- a picture is made ---- */

static void child_begin(struct top *top)
{
        int ends[2];
        top->begun_ms = now_ms();
        if (pipe(ends) != 0)
                return;
        pid_t child = fork();
        if (child == 0) {
                struct cli cli = *top->cli;
                (void)signal(SIGINT, SIG_DFL);
                (void)signal(SIGTERM, SIG_DFL);
                (void)dup2(ends[1], STDOUT_FILENO);
                (void)dup2(ends[1], STDERR_FILENO);
                (void)close(ends[0]);
                (void)close(ends[1]);
                int status = cli_status(&cli);
                (void)fflush(stdout);
                _exit(status);
        }
        (void)close(ends[1]);
        if (child < 0) {
                (void)close(ends[0]);
                return;
        }
        top->child = child;
        top->pipe = ends[0];
}

static void child_end(struct top *top)
{
        if (top->child == 0)
                return;
        (void)kill(top->child, SIGKILL);
        (void)close(top->pipe);
        while (waitpid(top->child, NULL, 0) < 0 && errno == EINTR)
                continue;
        top->child = 0;
        top->pipe = -1;
}

/* Takes what the child has written. True: the picture is whole, and shown from now on. */
static bool child_read(struct top *top)
{
        struct picture *next = &top->next;
        char *text = realloc(next->text, next->len + 4096 + 1);
        if (text == NULL)
                return false;
        next->text = text;
        ssize_t len = read(top->pipe, text + next->len, 4096);
        if (len > 0 && next->len + (size_t)len <= PICTURE_BYTES_MAX) {
                next->len += (size_t)len;
                return false;
        }
        if (len < 0 && errno == EINTR)
                return false;
        text[next->len] = '\0';
        child_end(top);
        free(top->shown.text);
        top->shown = *next;
        *next = (struct picture){0};
        return true;
}

/* ---- and drawn ---- */

/* One line, as far as there are columns; escape sequences take none. */
static void line_draw(const char *line, size_t len, size_t columns)
{
        size_t width = 0;
        size_t at = 0;
        while (at < len) {
                size_t end = at + 1;
                if (line[at] == '\033') {
                        while (end < len && line[end - 1] != 'm')
                                end++;
                } else if (width++ == columns) {
                        break;
                } else {
                        while (end < len && ((unsigned char)line[end] & 0xc0) == 0x80)
                                end++;
                }
                (void)fwrite(line + at, 1, end - at, stdout);
                at = end;
        }
        printf("%s\033[K", term_style(TERM_PLAIN));
}

static size_t lines_count(const struct picture *picture)
{
        size_t count = 0;
        for (size_t i = 0; i < picture->len; i++)
                count += picture->text[i] == '\n';
        return count;
}

static void head_draw(size_t columns, bool more)
{
        char line[128];
        char clock[16] = "";
        struct tm utc;
        time_t seconds = time(NULL);
        if (gmtime_r(&seconds, &utc) != NULL)
                (void)strftime(clock, sizeof clock, "%H:%M:%S", &utc);
        (void)snprintf(line, sizeof line, "%s UTC  q: end%s", clock,
                       more ? "  j, k: down, up" : "");
        printf("\033[H%s", term_style(TERM_DIM));
        line_draw(line, strlen(line), columns);
}

static void draw(struct top *top)
{
        term_measure();
        size_t rows = term_rows() > 1 ? term_rows() - 1 : 1;
        size_t count = lines_count(&top->shown);
        size_t last = count > rows ? count - rows : 0;
        const char *at = top->shown.text;
        top->first = top->first > last ? last : top->first;
        head_draw(term_columns(), last > 0);
        for (size_t i = 0; at != NULL && i < count && i < top->first + rows; i++) {
                const char *end = strchr(at, '\n');
                if (i >= top->first) {
                        printf("\r\n");
                        line_draw(at, (size_t)(end - at), term_columns());
                }
                at = end + 1;
        }
        printf("\033[J");
        (void)fflush(stdout);
}

/* ---- keys ---- */

/* Arrows are sequences that end with 'A' or 'B'. */
static void key_take(struct top *top)
{
        char keys[64];
        ssize_t len = read(STDIN_FILENO, keys, sizeof keys);
        if (len == 0 || (len < 0 && errno != EINTR))
                ended = 1; /* the terminal is gone */
        for (ssize_t i = 0; i < len; i++) {
                bool arrow = i >= 2 && keys[i - 2] == '\033';
                if (keys[i] == KEY_QUIT)
                        ended = 1;
                else if (keys[i] == KEY_DOWN || (arrow && keys[i] == 'B'))
                        top->first++;
                else if (top->first > 0 && (keys[i] == KEY_UP || (arrow && keys[i] == 'A')))
                        top->first--;
        }
}

/* Until a key, a part of a picture, or the time for the next one. */
static void turn(struct top *top)
{
        struct pollfd ends[2] = {{.fd = STDIN_FILENO, .events = POLLIN},
                                 {.fd = top->pipe, .events = POLLIN}};
        uint64_t since_ms = now_ms() - top->begun_ms;
        int wait_ms = top->child != 0 ? -1 : since_ms < EVERY_MS ? (int)(EVERY_MS - since_ms) : 0;
        int ready = poll(ends, top->pipe < 0 ? 1 : 2, wait_ms);
        bool redraw = ready < 0; /* a signal: the size may have changed */
        if (ready > 0 && ends[0].revents != 0) {
                key_take(top);
                redraw = true;
        }
        if (ready > 0 && top->pipe >= 0 && ends[1].revents != 0)
                redraw = child_read(top) || redraw;
        if (top->child == 0 && now_ms() - top->begun_ms >= EVERY_MS)
                child_begin(top);
        if (redraw && ended == 0)
                draw(top);
}

static void on_resize(int number)
{
        (void)number;
}

static void signals_take(void)
{
        struct sigaction end = {.sa_handler = on_signal};
        struct sigaction resize = {.sa_handler = on_resize};
        static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
        for (size_t i = 0; i < COUNT_OF(numbers); i++)
                (void)sigaction(numbers[i], &end, NULL);
        (void)sigaction(SIGWINCH, &resize, NULL);
}

int cli_top(struct cli *cli)
{
        struct termios before;
        struct top top = {.cli = cli, .pipe = -1};
        if (!term_is_tty() || tcgetattr(STDIN_FILENO, &before) != 0 || cli->node_count == 0)
                return cli_status(cli);
        struct termios raw = before;
        raw.c_lflag &= (tcflag_t) ~(ICANON | ECHO);
        signals_take();
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &raw);
        printf("\033[?1049h\033[?25l\033[2J"); /* another page, no cursor */
        draw(&top);
        child_begin(&top);
        while (ended == 0)
                turn(&top);
        child_end(&top);
        printf("\033[?25h\033[?1049l");
        (void)fflush(stdout);
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &before);
        free(top.shown.text);
        free(top.next.text);
        return CLI_DONE;
}
