/* loadgen: many Server-Sent Events clients and an event publisher, light enough that the server is
 * what is measured. Linux only (epoll). `benchmarks/loadgen.py` compiles and drives it.
 *
 *   loadgen hold    --port P --messages F [--sources K]
 *   loadgen loop    --port P --messages F --concurrency C --frames N (--seconds D | --count K)
 *                   [--sources K] [--quickack 1]
 *   loadgen publish --port P --messages F --replies resp|http (--rate R --seconds D | --count K)
 *                   [--rate R] [--window W] [--sockets S] [--first F]
 *
 * A file of messages holds, one after the other, "<length>\n<bytes>\n": whole HTTP requests, or whole
 * commands for Redis. Connection i, or event i, uses message i modulo their number, so nothing about
 * paths, headers, tokens and scripts is known here.
 *
 * In a published message "@" + 16 zeros + "@" becomes the time of sending (CLOCK_MONOTONIC in ns, as
 * hexadecimal digits), and "#" + 16 zeros + "#" a number that no other event has. The clients look
 * for the former in the data of each record: its age is the latency.
 *
 * Answers are JSON, one line each. Times are in seconds unless the name says ms or ns.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef uint64_t u64;

#define SECOND 1000000000ull
#define READ_BYTES (256 * 1024)
#define HEAD_BYTES (16 * 1024)
#define MARK_BYTES 18 /* a sign, 16 digits, the sign again */

static u64 now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (u64)t.tv_sec * SECOND + (u64)t.tv_nsec;
}

static double seconds(u64 ns) { return (double)ns / (double)SECOND; }

static double cpu_seconds(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *format, ...)
{
    va_list rest;
    va_start(rest, format);
    fputs("loadgen: ", stderr);
    vfprintf(stderr, format, rest);
    fputc('\n', stderr);
    exit(2);
}

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    if (!memory) die("out of memory");
    return memory;
}

/* ---- options: "--name value" */

static int option_count;
static char **options;

static const char *option(const char *name, const char *otherwise)
{
    for (int i = 2; i + 1 < option_count; i += 2)
        if (strcmp(options[i] + 2, name) == 0) return options[i + 1];
    if (!otherwise) die("--%s is missing", name);
    return otherwise;
}

static double number(const char *name, const char *otherwise)
{
    return strtod(option(name, otherwise), NULL);
}

/* ---- messages */

struct message {
    char *bytes;
    size_t size;
};

struct messages {
    struct message *item;
    size_t count;
};

static char *file_text(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    if (!file) die("%s: %s", path, strerror(errno));
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    char *text = allocate(*size + 1, 1);
    if (fread(text, 1, *size, file) != *size) die("%s can't be read", path);
    fclose(file);
    return text;
}

static struct messages read_messages(const char *path)
{
    size_t size, room = 0;
    char *next = file_text(path, &size), *end = next + size;
    struct messages all = {0};
    while (next < end) {
        char *bytes;
        size_t length = strtoul(next, &bytes, 10);
        if (*bytes != '\n' || (size_t)(end - bytes) < length + 2) die("%s is not of messages", path);
        if (all.count == room) {
            room = room ? 2 * room : 64;
            all.item = realloc(all.item, room * sizeof *all.item);
            if (!all.item) die("out of memory");
        }
        all.item[all.count++] = (struct message){bytes + 1, length};
        next = bytes + 1 + length + 1;
    }
    if (!all.count) die("%s is empty", path);
    return all;
}

/* ---- hexadecimal digits, and the marks that are made of them */

static int digit_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

static void write_digits(char *at, u64 value)
{
    for (int i = 15; i >= 0; i--, value >>= 4) at[i] = "0123456789abcdef"[value & 15];
}

static bool read_digits(const char *at, u64 *value)
{
    *value = 0;
    for (int i = 0; i < 16; i++) {
        int digit = digit_value(at[i]);
        if (digit < 0) return false;
        *value = *value << 4 | (u64)digit;
    }
    return true;
}

/* Returns the first mark in a text, NULL where it has none. */
static const char *find_mark(const char *text, size_t size, char sign, u64 *value)
{
    const char *end = text + size;
    while ((text = memchr(text, sign, (size_t)(end - text)))) {
        if (end - text < MARK_BYTES) return NULL;
        if (text[MARK_BYTES - 1] == sign && read_digits(text + 1, value)) return text;
        text++;
    }
    return NULL;
}

/* ---- latencies: a histogram with 128 buckets for each doubling, so an error below 0.8 % */

#define STEP_BITS 7
#define STEPS (1u << STEP_BITS)

struct latencies {
    u64 bucket[(64 - STEP_BITS + 1) * STEPS];
    u64 count, longest;
};

static void record(struct latencies *all, u64 ns)
{
    unsigned place = (unsigned)ns;
    if (ns >= STEPS) {
        unsigned shift = 63 - (unsigned)__builtin_clzll(ns) - STEP_BITS;
        place = (shift + 1) * STEPS + (unsigned)(ns >> shift) - STEPS;
    }
    all->bucket[place]++;
    all->count++;
    if (ns > all->longest) all->longest = ns;
}

static double percentile_ms(const struct latencies *all, double part)
{
    u64 wanted = (u64)(part * (double)all->count), seen = 0;
    for (unsigned place = 0; place < sizeof all->bucket / sizeof *all->bucket; place++) {
        seen += all->bucket[place];
        if (seen > wanted) {
            u64 ns = place < STEPS ? place : (u64)(STEPS + place % STEPS) << (place / STEPS - 1);
            return (double)ns / 1e6;
        }
    }
    return (double)all->longest / 1e6;
}

static void print_latencies(const struct latencies *all)
{
    printf("\"p50_ms\":%.4f,\"p90_ms\":%.4f,\"p99_ms\":%.4f,\"max_ms\":%.4f", percentile_ms(all, .5),
           percentile_ms(all, .9), percentile_ms(all, .99), (double)all->longest / 1e6);
}

/* ---- sockets */

static struct sockaddr_in loopback(unsigned last_byte, int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK - 1 + last_byte);
    return address;
}

/* Begins to connect from 127.0.0.<source>: each has a range of ports of its own. */
static int connect_from(unsigned source, int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0) return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    struct sockaddr_in from = loopback(source, 0), to = loopback(1, port);
    if (bind(fd, (struct sockaddr *)&from, sizeof from) == 0 &&
        (connect(fd, (struct sockaddr *)&to, sizeof to) == 0 || errno == EINPROGRESS))
        return fd;
    close(fd);
    return -1;
}

static bool is_connected(int fd)
{
    int error = 0;
    socklen_t size = sizeof error;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
}

/* ---- a stream: one HTTP response, read as it comes, in pieces of any size */

enum phase { CLOSED, CONNECTING, HEAD, BODY };
enum chunk { CHUNK_SIZE, CHUNK_EXTENSION, CHUNK_DATA, CHUNK_END, CHUNK_LAST };

struct stream {
    int fd;
    uint8_t phase, chunk;
    bool chunked, has_data;
    int status;
    unsigned request; /* the index of what it sends */
    u64 chunk_left;
    char *held; /* the part that came of a head or a line */
    unsigned held_size;
    unsigned frames;
    u64 started, last_mark;
};

/* What all streams of this process got since the last reset. */
static struct {
    u64 frames, marked, bytes, chunks, disordered, first_frame, last_frame;
    struct latencies latency;
} got;

static void hold(struct stream *s, const char *text, size_t size)
{
    s->held = realloc(s->held, s->held_size + size + 1);
    if (!s->held) die("out of memory");
    memcpy(s->held + s->held_size, text, size);
    s->held_size += (unsigned)size;
    s->held[s->held_size] = 0;
}

static void let_go(struct stream *s)
{
    free(s->held);
    s->held = NULL;
    s->held_size = 0;
}

static void take_line(struct stream *s, const char *line, size_t size, u64 now)
{
    if (size && line[size - 1] == '\r') size--;
    if (size == 0) { /* ends a record */
        if (!s->has_data) return;
        s->has_data = false;
        s->frames++;
        if (!got.frames++) got.first_frame = now;
        got.last_frame = now;
    } else if (size >= 5 && memcmp(line, "data:", 5) == 0) {
        s->has_data = true;
        u64 sent;
        if (!find_mark(line + 5, size - 5, '@', &sent)) return;
        got.marked++;
        record(&got.latency, now > sent ? now - sent : 0);
        if (sent < s->last_mark) got.disordered++;
        s->last_mark = sent;
    }
}

static void take_text(struct stream *s, const char *text, const char *end, u64 now)
{
    got.bytes += (u64)(end - text);
    while (text < end) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        if (!stop) {
            hold(s, text, (size_t)(end - text));
            return;
        }
        if (s->held) {
            hold(s, text, (size_t)(stop - text));
            take_line(s, s->held, s->held_size, now);
            let_go(s);
        } else {
            take_line(s, text, (size_t)(stop - text), now);
        }
        text = stop + 1;
    }
}

/* RFC 9112, section 7.1. Returns false at the end of the response. */
static bool take_body(struct stream *s, const char *text, const char *end, u64 now)
{
    if (!s->chunked) {
        take_text(s, text, end, now);
        return true;
    }
    while (text < end) {
        switch ((enum chunk)s->chunk) {
        case CHUNK_SIZE:
        case CHUNK_EXTENSION: {
            char c = *text++;
            int digit = digit_value(c);
            if (c == '\n') {
                s->chunk = s->chunk_left ? CHUNK_DATA : CHUNK_LAST;
                got.chunks += s->chunk_left != 0;
            } else if (digit < 0) {
                s->chunk = CHUNK_EXTENSION;
            } else if (s->chunk == CHUNK_SIZE) {
                s->chunk_left = s->chunk_left * 16 + (u64)digit;
            }
            break;
        }
        case CHUNK_DATA: {
            u64 size = (u64)(end - text) < s->chunk_left ? (u64)(end - text) : s->chunk_left;
            take_text(s, text, text + size, now);
            text += size;
            s->chunk_left -= size;
            if (!s->chunk_left) s->chunk = CHUNK_END;
            break;
        }
        case CHUNK_END:
            if (*text++ == '\n') s->chunk = CHUNK_SIZE;
            break;
        case CHUNK_LAST:
            return false;
        }
    }
    return s->chunk != CHUNK_LAST;
}

/* Returns false where the stream is at its end. */
static bool take_bytes(struct stream *s, const char *text, const char *end, u64 now)
{
    if (s->phase == BODY) return take_body(s, text, end, now);
    size_t before = s->held_size;
    hold(s, text, (size_t)(end - text));
    char *stop = strstr(s->held + (before > 3 ? before - 3 : 0), "\r\n\r\n");
    if (!stop) return s->held_size < HEAD_BYTES;
    const char *body = text + (stop + 4 - s->held - (ptrdiff_t)before);
    *stop = 0;
    const char *space = strchr(s->held, ' ');
    s->status = space ? atoi(space + 1) : -1;
    s->chunked = strcasestr(s->held, "\r\ntransfer-encoding: chunked") != NULL;
    s->phase = BODY;
    let_go(s);
    return s->status == 200 && take_body(s, body, end, now);
}

/* ---- clients: streams, on one epoll */

static struct {
    int epoll, port;
    unsigned sources;
    bool quickack;
    struct messages requests;
    struct stream *all;
    unsigned started; /* connections begun so far: picks request and source */
    unsigned waiting, headers, refused, failed, closed;
    int refused_status;
    u64 last_header;
} clients;

static void watch(struct stream *s, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.u64 = (u64)(s - clients.all)};
    epoll_ctl(clients.epoll, operation, s->fd, &event);
}

static void end_stream(struct stream *s)
{
    if (s->phase == CLOSED) return;
    if (s->phase != BODY) {
        clients.waiting--;
        clients.failed++;
    }
    close(s->fd);
    let_go(s);
    s->phase = CLOSED;
}

static void start_stream(struct stream *s)
{
    *s = (struct stream){.started = now_ns()};
    s->fd = connect_from(1 + clients.started % clients.sources, clients.port);
    if (s->fd < 0) {
        clients.started++;
        clients.failed++;
        return;
    }
    s->phase = CONNECTING;
    s->request = (unsigned)(clients.started++ % clients.requests.count);
    clients.waiting++;
    watch(s, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
}

static bool send_request(struct stream *s)
{
    const struct message *request = &clients.requests.item[s->request];
    if (!is_connected(s->fd)) return false;
    if (send(s->fd, request->bytes, request->size, 0) != (ssize_t)request->size) return false;
    s->phase = HEAD;
    watch(s, EPOLL_CTL_MOD, EPOLLIN);
    return true;
}

/* Reads once. Returns false where the stream is at its end. */
static bool read_stream(struct stream *s)
{
    static char buffer[READ_BYTES];
    ssize_t size = recv(s->fd, buffer, sizeof buffer, 0);
    if (size <= 0) return size < 0 && (errno == EAGAIN || errno == EINTR);
    u64 now = now_ns();
    enum phase before = s->phase;
    bool open = take_bytes(s, buffer, buffer + size, now);
    if (before == HEAD && s->phase == BODY) {
        clients.waiting--;
        if (s->status == 200) {
            clients.headers++;
            clients.last_header = now;
        } else {
            clients.refused++;
            clients.refused_status = s->status;
        }
    }
    if (clients.quickack) {
        int on = 1;
        setsockopt(s->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
    }
    return open;
}

/* Does what a readiness asks for. Returns false where the stream has ended and is closed. */
static bool serve(struct stream *s)
{
    if (s->phase == CLOSED) return true; /* reported before it was closed in this round */
    bool open = s->phase == CONNECTING ? send_request(s) : read_stream(s);
    if (open) return true;
    if (s->phase == BODY && s->status == 200) clients.closed++;
    end_stream(s);
    return false;
}

static void set_up_clients(unsigned count)
{
    clients.port = (int)number("port", NULL);
    clients.sources = (unsigned)number("sources", "16");
    clients.quickack = number("quickack", "0") != 0;
    clients.requests = read_messages(option("messages", NULL));
    clients.all = allocate(count, sizeof *clients.all);
    clients.epoll = epoll_create1(EPOLL_CLOEXEC);
}

/* ---- hold: streams that stay open; commands on standard input
 *
 *   open N RATE WINDOW SECONDS   opens N streams, at most RATE a second and WINDOW of them without
 *                                headers; answers when none waits any more, or after SECONDS
 *   await FRAMES SECONDS         answers when as many frames came since the reset, or after SECONDS
 *   reset, report, close, quit   `close` closes all streams; each answers with a report
 */

static struct {
    unsigned wanted, opened;
    double rate;
    unsigned window;
    u64 opening_since;
    enum { NOTHING, OPENING, AWAITING } pending;
    u64 deadline, frames;
    char commands[4096];
    size_t size;
} held;

static void report(void)
{
    unsigned open = 0, fewest = 0, most = 0;
    for (unsigned i = 0; i < held.opened; i++) {
        struct stream *s = &clients.all[i];
        if (s->phase != BODY) continue;
        if (!open || s->frames < fewest) fewest = s->frames;
        if (s->frames > most) most = s->frames;
        open++;
    }
    printf("{\"open\":%u,\"headers\":%u,\"refused\":%u,\"refused_status\":%d,\"failed\":%u,"
           "\"closed\":%u,\"headers_seconds\":%.4f,",
           open, clients.headers, clients.refused, clients.refused_status, clients.failed,
           clients.closed,
           clients.last_header ? seconds(clients.last_header - held.opening_since) : 0.);
    printf("\"frames\":%lu,\"marked\":%lu,\"bytes\":%lu,\"chunks\":%lu,\"disordered\":%lu,"
           "\"fewest\":%u,\"most\":%u,\"first_frame_ns\":%lu,\"last_frame_ns\":%lu,",
           got.frames, got.marked, got.bytes, got.chunks, got.disordered, fewest, most,
           got.first_frame, got.last_frame);
    print_latencies(&got.latency);
    printf(",\"cpu_seconds\":%.4f}\n", cpu_seconds());
    fflush(stdout);
}

static void reset(void)
{
    memset(&got, 0, sizeof got);
    for (unsigned i = 0; i < held.opened; i++) clients.all[i].frames = 0;
}

static void close_all(void)
{
    for (unsigned i = 0; i < held.opened; i++) end_stream(&clients.all[i]);
    free(clients.all);
    clients.all = NULL;
    held.wanted = held.opened = clients.started = 0;
    clients.headers = clients.refused = clients.failed = clients.closed = 0;
    clients.last_header = 0;
}

static void obey(const char *command)
{
    double limit = 0;
    if (sscanf(command, "open %u %lf %u %lf", &held.wanted, &held.rate, &held.window, &limit) == 4) {
        unsigned wanted = held.wanted;
        close_all();
        held.wanted = wanted;
        clients.all = allocate(wanted, sizeof *clients.all);
        held.opening_since = now_ns();
        held.pending = OPENING;
    } else if (sscanf(command, "await %lu %lf", &held.frames, &limit) == 2) {
        held.pending = AWAITING;
    } else if (strcmp(command, "quit") == 0) {
        exit(0);
    } else {
        if (strcmp(command, "reset") == 0)
            reset();
        else if (strcmp(command, "close") == 0)
            close_all();
        else if (strcmp(command, "report") != 0)
            die("unknown command: %s", command);
        report();
    }
    held.deadline = now_ns() + (u64)(limit * (double)SECOND);
}

static void read_commands(void)
{
    ssize_t size = read(0, held.commands + held.size, sizeof held.commands - held.size - 1);
    if (size <= 0) exit(0); /* the owner is gone */
    held.size += (size_t)size;
    held.commands[held.size] = 0;
}

static bool next_command(void)
{
    char *stop = held.pending == NOTHING ? strchr(held.commands, '\n') : NULL;
    if (!stop) return false;
    *stop = 0;
    char command[sizeof held.commands];
    strcpy(command, held.commands);
    held.size -= (size_t)(stop + 1 - held.commands);
    memmove(held.commands, stop + 1, held.size + 1);
    obey(command);
    return true;
}

static void open_more(u64 now)
{
    double due = held.rate * seconds(now - held.opening_since) + 1;
    while (held.opened < held.wanted && held.opened < due && clients.waiting < held.window)
        start_stream(&clients.all[held.opened++]);
}

static void answer_if_done(u64 now)
{
    bool done = held.pending == OPENING ? held.opened == held.wanted && clients.waiting == 0
                                        : got.frames >= held.frames;
    if (held.pending == NOTHING || (!done && now < held.deadline)) return;
    held.pending = NOTHING;
    held.wanted = held.opened; /* out of time: no more of them */
    report();
}

static int run_hold(void)
{
    static struct epoll_event events[1024];
    set_up_clients(0);
    struct epoll_event input = {.events = EPOLLIN, .data.u64 = UINT64_MAX};
    if (epoll_ctl(clients.epoll, EPOLL_CTL_ADD, 0, &input)) die("standard input is no pipe");
    for (;;) {
        int wait_ms = held.opened < held.wanted ? 1 : held.pending != NOTHING ? 20 : -1;
        int ready = epoll_wait(clients.epoll, events, 1024, wait_ms);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.u64 == UINT64_MAX)
                read_commands();
            else
                serve(&clients.all[events[i].data.u64]);
        }
        u64 now = now_ns();
        open_more(now);
        answer_if_done(now);
        while (next_command()) continue;
    }
}

/* ---- loop: connect, read N frames (none: only the headers), close, again */

static int run_loop(void)
{
    static struct epoll_event events[256];
    static struct latencies took;
    unsigned concurrency = (unsigned)number("concurrency", NULL);
    unsigned frames = (unsigned)number("frames", NULL);
    u64 most = (u64)number("count", "1e15");
    set_up_clients(concurrency);
    u64 begin = now_ns(), end = begin + (u64)(number("seconds", "1e6") * (double)SECOND);
    u64 started = 0, done = 0, finished = begin, broken = 0;
    unsigned running = 0;
    for (; started < most && started < concurrency; started++) {
        start_stream(&clients.all[started]);
        running += clients.all[started].phase != CLOSED;
    }
    while (running && now_ns() < end + 10 * SECOND) {
        int ready = epoll_wait(clients.epoll, events, 256, 100);
        for (int i = 0; i < ready; i++) {
            struct stream *s = &clients.all[events[i].data.u64];
            if (s->phase == CLOSED) continue;
            bool open = serve(s);
            if (open && (s->phase != BODY || s->frames < frames)) continue;
            finished = now_ns();
            if (s->status == 200 && s->frames >= frames && (open || frames)) {
                record(&took, finished - s->started);
                done++;
            } else {
                broken++;
            }
            end_stream(s);
            running--;
            if (finished < end && started < most) {
                start_stream(s);
                started++;
                running += s->phase != CLOSED;
            }
        }
    }
    printf("{\"done\":%lu,\"broken\":%lu,\"refused\":%u,\"refused_status\":%d,\"failed\":%u,"
           "\"seconds\":%.4f,\"per_second\":%.2f,\"frames\":%lu,",
           done, broken, clients.refused, clients.refused_status, clients.failed,
           seconds(finished - begin), (double)done / (seconds(finished - begin) + 1e-9), got.frames);
    print_latencies(&took);
    printf(",\"cpu_seconds\":%.4f}\n", cpu_seconds());
    return 0;
}

/* ---- replies to what was published, counted as they come, in pieces of any size */

struct replies {
    u64 count, errors;
    size_t skip;   /* bytes of a body that are still to come, and not looked at */
    long elements; /* RESP: replies inside arrays that are still to come */
    char text[HEAD_BYTES];
    size_t size; /* of the line (RESP) or the head (HTTP) so far */
};

static void note_error(struct replies *r, const char *what)
{
    if (!r->errors++) fprintf(stderr, "%.200s\n", what);
}

/* One line of RESP: a whole reply, the size of a string, or the length of an array. */
static void take_resp_line(struct replies *r)
{
    long value = strtol(r->text + 1, NULL, 10);
    if (r->elements) r->elements--;
    if (r->text[0] == '*' && value > 0) r->elements += value;
    if (r->text[0] == '$' && value >= 0) r->skip = (size_t)value + 2;
    if (r->text[0] == '-') note_error(r, r->text);
}

static void take_http_head(struct replies *r)
{
    const char *length = strcasestr(r->text, "\r\ncontent-length:");
    if (atoi(r->text + 9) / 100 != 2) note_error(r, r->text);
    r->skip = length ? strtoul(length + 17, NULL, 10) : 0;
}

static void take_replies(struct replies *r, bool http, const char *text, size_t size)
{
    for (const char *end = text + size; text < end;) {
        if (r->skip) {
            size_t part = (size_t)(end - text) < r->skip ? (size_t)(end - text) : r->skip;
            text += part;
            r->skip -= part;
        } else {
            if (r->size + 1 >= sizeof r->text) die("a reply of another form");
            char c = r->text[r->size++] = *text++;
            if (c != '\n' || (http && (r->size < 4 || memcmp(r->text + r->size - 4, "\r\n\r\n", 4))))
                continue;
            r->text[r->size] = 0;
            r->size = 0;
            http ? take_http_head(r) : take_resp_line(r);
        }
        if (!r->skip && !r->elements) r->count++;
    }
}

/* ---- publish: paced, or as fast as the window lets it */

#define OUT_BYTES (1 << 20)
#define MOST_SOCKETS 64
#define TICK 500000ull /* ns: events due within one go out together */

struct outlet {
    int fd;
    char *out;
    size_t begin, end;
    u64 sent;
    struct replies replies;
};

static struct {
    struct outlet *outlet;
    unsigned outlets;
    struct messages messages;
    struct pattern {
        size_t mark, token;
    } *pattern; /* where in each message */
    bool http;
    u64 window, token;
} publisher;

static void find_patterns(void)
{
    publisher.pattern = allocate(publisher.messages.count, sizeof *publisher.pattern);
    for (size_t i = 0; i < publisher.messages.count; i++) {
        struct message *m = &publisher.messages.item[i];
        u64 value;
        const char *mark = find_mark(m->bytes, m->size, '@', &value);
        const char *token = find_mark(m->bytes, m->size, '#', &value);
        if (!mark) die("a message has no place for the time");
        publisher.pattern[i].mark = (size_t)(mark - m->bytes) + 1;
        publisher.pattern[i].token = token ? (size_t)(token - m->bytes) + 1 : 0;
    }
}

static bool flush(struct outlet *o)
{
    if (o->begin == o->end) return true;
    ssize_t size = send(o->fd, o->out + o->begin, o->end - o->begin, 0);
    if (size > 0) o->begin += (size_t)size;
    if (o->begin == o->end) o->begin = o->end = 0;
    return size > 0 || errno == EAGAIN || errno == EINTR;
}

/* Puts event `index` into its socket's buffer; false where that or the window is full. */
static bool put(u64 index, u64 now)
{
    size_t which = index % publisher.messages.count;
    struct message *m = &publisher.messages.item[which];
    /* By user, so that one user's events stay in order; a single user's go over all sockets. */
    u64 lane = publisher.messages.count > 1 ? which : index;
    struct outlet *o = &publisher.outlet[lane % publisher.outlets];
    if (o->sent - o->replies.count >= publisher.window || OUT_BYTES - o->end < m->size) return false;
    char *at = o->out + o->end;
    memcpy(at, m->bytes, m->size);
    write_digits(at + publisher.pattern[which].mark, now);
    if (publisher.pattern[which].token)
        write_digits(at + publisher.pattern[which].token, ++publisher.token);
    o->end += m->size;
    o->sent++;
    return true;
}

static bool receive(struct outlet *o)
{
    static char buffer[64 * 1024];
    ssize_t size = recv(o->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (size > 0) take_replies(&o->replies, publisher.http, buffer, (size_t)size);
    return size > 0 || (size < 0 && (errno == EAGAIN || errno == EINTR));
}

static void open_outlet(struct outlet *o, int port, const struct messages *first)
{
    o->out = allocate(OUT_BYTES, 1);
    o->fd = connect_from(1, port);
    struct pollfd until = {.fd = o->fd, .events = POLLOUT};
    if (o->fd < 0 || poll(&until, 1, 5000) != 1 || !is_connected(o->fd)) die("port %d: refused", port);
    for (size_t i = 0; first && i < first->count; i++) {
        send(o->fd, first->item[i].bytes, first->item[i].size, 0);
        until.events = POLLIN;
        while (o->replies.count <= i)
            if (poll(&until, 1, 5000) != 1 || !receive(o)) die("no reply to the first message");
    }
    if (o->replies.errors) die("the first message was refused");
    o->replies.count = 0;
}

static void open_outlets(void)
{
    const char *first = option("first", "");
    struct messages messages = {0};
    if (*first) messages = read_messages(first);
    publisher.outlets = (unsigned)number("sockets", "1");
    if (publisher.outlets < 1 || publisher.outlets > MOST_SOCKETS) die("--sockets takes 1 to 64");
    publisher.outlet = allocate(publisher.outlets, sizeof *publisher.outlet);
    for (unsigned i = 0; i < publisher.outlets; i++)
        open_outlet(&publisher.outlet[i], (int)number("port", NULL), *first ? &messages : NULL);
}

/* Waits for replies, for room, or for `until`. */
static void wait_for_sockets(u64 until, bool blocked)
{
    struct pollfd sockets[MOST_SOCKETS];
    for (unsigned i = 0; i < publisher.outlets; i++) {
        struct outlet *o = &publisher.outlet[i];
        short writing = o->begin != o->end ? POLLOUT : 0;
        /* Replies alone need no haste: they are taken along at the next tick. */
        short reading = blocked || until == UINT64_MAX ? POLLIN : 0;
        sockets[i] = (struct pollfd){.fd = o->fd, .events = (short)(reading | writing)};
    }
    u64 now = now_ns();
    u64 pause = until > now ? until - now : 0;
    if (pause > SECOND / 10) pause = SECOND / 10;
    struct timespec limit = {0, (long)pause};
    ppoll(sockets, publisher.outlets, &limit, NULL);
    for (unsigned i = 0; i < publisher.outlets; i++)
        if (!receive(&publisher.outlet[i]) || !flush(&publisher.outlet[i])) die("a connection was lost");
}

static u64 answered(void)
{
    u64 count = 0;
    for (unsigned i = 0; i < publisher.outlets; i++) count += publisher.outlet[i].replies.count;
    return count;
}

static int run_publish(void)
{
    double rate = number("rate", "0"), length = number("seconds", "0");
    u64 total = (u64)number("count", "0");
    if (!total) total = (u64)(rate * length);
    publisher.http = strcmp(option("replies", NULL), "http") == 0;
    publisher.messages = read_messages(option("messages", NULL));
    publisher.token = now_ns() << 20; /* further events of a later run are far away */
    find_patterns();
    open_outlets();
    publisher.window = (u64)(number("window", "512") / publisher.outlets);
    if (!publisher.window) publisher.window = 1;

    u64 begin = now_ns(), sent = 0, last_sent = begin, longest_lag = 0;
    /* A paced run that can't keep up is over when its time is. */
    u64 end = length > 0 ? begin + (u64)(length * (double)SECOND) : UINT64_MAX;
    u64 give_up = (length > 0 ? end : begin) + 30 * SECOND;
    for (;;) {
        u64 now = now_ns(), due = total;
        if (rate > 0 && rate * seconds(now - begin) + 1 < (double)total)
            due = (u64)(rate * seconds(now - begin)) + 1;
        bool blocked = false;
        while (sent < due && !(blocked = !put(sent, now = now_ns()))) {
            u64 planned = rate > 0 ? begin + (u64)((double)sent / rate * (double)SECOND) : now;
            if (now > planned && now - planned > longest_lag) longest_lag = now - planned;
            sent++;
            last_sent = now;
        }
        for (unsigned i = 0; i < publisher.outlets; i++) flush(&publisher.outlet[i]);
        if (sent < total && now > end && now - end > TICK) total = sent;
        if ((sent == total && answered() == sent) || now > give_up) break;
        u64 next = UINT64_MAX;
        if (sent < total && !blocked) {
            next = begin + (u64)((double)sent / rate * (double)SECOND) + 1;
            if (next < now + TICK && rate * seconds(TICK) > 1) next = now + TICK;
        }
        wait_for_sockets(next, blocked);
    }
    u64 errors = 0;
    for (unsigned i = 0; i < publisher.outlets; i++) errors += publisher.outlet[i].replies.errors;
    printf("{\"sent\":%lu,\"answered\":%lu,\"errors\":%lu,\"seconds\":%.4f,\"per_second\":%.2f,"
           "\"longest_lag_ms\":%.3f,\"begin_ns\":%lu,\"last_sent_ns\":%lu,\"cpu_seconds\":%.4f}\n",
           sent, answered(), errors, seconds(now_ns() - begin),
           (double)sent / (seconds(last_sent - begin) + (rate > 0 ? 1 / rate : 1e-9)),
           (double)longest_lag / 1e6, begin, last_sent, cpu_seconds());
    return 0;
}

int main(int count, char **arguments)
{
    option_count = count;
    options = arguments;
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_TIMERSLACK, 1000);
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    const char *mode = count > 1 ? arguments[1] : "";
    if (strcmp(mode, "hold") == 0) return run_hold();
    if (strcmp(mode, "loop") == 0) return run_loop();
    if (strcmp(mode, "publish") == 0) return run_publish();
    die("takes hold, loop or publish");
}
