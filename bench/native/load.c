/* A load generator that is never what a measurement waits for: callers over HTTP/1.1, each asking again as soon as
 * it was answered, plain answers and streams.
 *
 *     load PORT PATH BODY_FILE CALLERS SECONDS GRACE_SECONDS SPREAD_SECONDS [HEADER ...]
 *
 * The callers begin spread over SPREAD_SECONDS. After SECONDS nobody asks again; who still waits is waited for, for
 * GRACE_SECONDS. Prints what it measured as one line of JSON, in milliseconds. The time that bench/native/double.c
 * writes into each chunk ("@" and 16 hex digits of nanoseconds) tells how long it was under way.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef unsigned long long ns_t;
enum state { CONNECTING, SENDING, READING, IDLE };
enum part { LENGTH, EXTENSION, DATA, DATA_END, LAST_LINE };

struct samples { float *values; size_t count, room; };

struct caller {
    int fd;
    enum state state;
    ns_t asked;
    size_t sent;
    char head[16384];
    int head_size, has_head, status, closes;
    int is_chunked;
    enum part part;
    long length, left;          /* of the chunk that is being read; of the whole, -1 unknown */
    int stamp_digits;           /* of the stamp that is being read; 0: none is */
    ns_t stamp;
    int tokens;
    double latency;             /* of the token before */
};

static int poller, port;
static char *request;
static size_t request_size;
static ns_t began, ends;
static struct samples answers, firsts, latencies, jitters;
static unsigned long long ok, refused, errors, tokens, bytes;
static char refusal[300];

static ns_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (ns_t)t.tv_sec * 1000000000ull + (ns_t)t.tv_nsec;
}

static void *grown(void *memory, size_t size)
{
    memory = realloc(memory, size);
    if (!memory) abort();
    return memory;
}

static void add(struct samples *s, double value)
{
    if (s->count == s->room) {
        s->room = s->room ? 2 * s->room : 4096;
        s->values = grown(s->values, s->room * sizeof *s->values);
    }
    s->values[s->count++] = (float)value;
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

/* ── one caller ──────────────────────────────────────────────────────────────────────── */

static void watch(struct caller *c, int operation, unsigned events)
{
    struct epoll_event e = {.events = events, .data.ptr = c};
    epoll_ctl(poller, operation, c->fd, &e);
}

static void call(struct caller *c)
{
    int one = 1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    inet_aton("127.0.0.1", &at.sin_addr);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    connect(c->fd, (struct sockaddr *)&at, sizeof at);
    c->state = CONNECTING;
    watch(c, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
}

static void call_again(struct caller *c)
{
    close(c->fd);
    c->state = IDLE;
    if (now() < ends) call(c);
}

static void fail(struct caller *c)
{
    errors++;
    call_again(c);
}

static void send_on(struct caller *c)
{
    while (c->sent < request_size) {
        ssize_t sent = send(c->fd, request + c->sent, request_size - c->sent, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) { watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT); return; }
        if (sent < 0) { fail(c); return; }
        c->sent += (size_t)sent;
    }
    c->state = READING;
    watch(c, EPOLL_CTL_MOD, EPOLLIN);
}

static void ask(struct caller *c)
{
    c->sent = 0;
    c->head_size = c->has_head = c->is_chunked = c->closes = c->stamp_digits = c->tokens = 0;
    c->part = LENGTH;
    c->length = 0;
    c->left = -1;
    c->asked = now();
    c->state = SENDING;
    send_on(c);
}

static void answered(struct caller *c)
{
    if (c->status == 200) ok++;
    else refused++;
    add(&answers, (double)(now() - c->asked) / 1e6);
    if (c->closes) { call_again(c); return; }
    c->state = IDLE;
    if (now() < ends) ask(c);
}

static void token(struct caller *c, ns_t at)
{
    double latency = ((double)at - (double)c->stamp) / 1e6;
    tokens++;
    if (c->tokens++ == 0) add(&firsts, (double)(at - c->asked) / 1e6);
    else add(&jitters, latency > c->latency ? latency - c->latency : c->latency - latency);
    c->latency = latency;
    add(&latencies, latency);
}

static int hex(char letter)
{
    if (letter >= '0' && letter <= '9') return letter - '0';
    letter |= 32;
    return letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
}

static void body(struct caller *c, const char *text, size_t size, ns_t at)
{
    const char *end = text + size;
    while (text < end) {
        if (!c->stamp_digits) {
            text = memchr(text, '@', (size_t)(end - text));
            if (!text) return;
            text++;
            c->stamp_digits = 1;
            c->stamp = 0;
            continue;
        }
        int digit = hex(*text);
        if (digit < 0) { c->stamp_digits = 0; continue; }
        c->stamp = c->stamp << 4 | (unsigned)digit;
        text++;
        if (++c->stamp_digits == 17) { c->stamp_digits = 0; token(c, at); }
    }
}

/* Returns how many of these bytes belong to the head; it is whole when `has_head` is set. */
static size_t head(struct caller *c, const char *text, size_t size)
{
    size_t room = sizeof c->head - 1 - (size_t)c->head_size, taken = size < room ? size : room;
    int before = c->head_size;
    memcpy(c->head + before, text, taken);
    c->head_size += (int)taken;
    c->head[c->head_size] = 0;
    char *end = memmem(c->head, (size_t)c->head_size, "\r\n\r\n", 4);
    if (!end) return taken;
    *end = 0;
    c->has_head = 1;
    c->status = atoi(c->head + 9);
    char *found = strcasestr(c->head, "\r\ncontent-length:");
    if (found) c->left = atol(found + 17);
    c->is_chunked = strcasestr(c->head, "\r\ntransfer-encoding:") != NULL;
    c->closes = strcasestr(c->head, "\r\nconnection: close") != NULL;
    return (size_t)(end + 4 - c->head) - (size_t)before;
}

/* Returns 1 when the answer is whole, -1 when it is no HTTP. */
static int chunked(struct caller *c, const char *text, size_t size, ns_t at)
{
    for (const char *end = text + size; text < end;) {
        if (c->part == DATA) {
            size_t some = (size_t)(end - text) < (size_t)c->length ? (size_t)(end - text) : (size_t)c->length;
            body(c, text, some, at);
            text += some;
            if (!(c->length -= (long)some)) c->part = DATA_END;
            continue;
        }
        char letter = *text++;
        if (letter == '\n') {
            if (c->part == LAST_LINE) return 1;
            c->part = c->part == DATA_END ? LENGTH : c->length ? DATA : LAST_LINE;
        } else if (c->part == LENGTH && letter == ';') {
            c->part = EXTENSION;
        } else if (c->part == LENGTH && letter != '\r') {
            int digit = hex(letter);
            if (digit < 0) return -1;
            c->length = c->length << 4 | digit;
        }
    }
    return 0;
}

static int read_answer(struct caller *c, const char *text, size_t size, ns_t at)
{
    if (!c->has_head) {
        size_t used = head(c, text, size);
        text += used;
        size -= used;
        if (!c->has_head) return used ? 0 : -1;
        if (c->status != 200) snprintf(refusal, sizeof refusal, "%.60s %.*s", c->head, (int)size, text);
    }
    if (c->is_chunked) return chunked(c, text, size, at);
    body(c, text, size, at);
    if (c->left < 0) return 0;
    c->left -= (long)size;
    return c->left <= 0;
}

static void read_on(struct caller *c)
{
    static char buffer[262144];
    ssize_t got = recv(c->fd, buffer, sizeof buffer, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        /* The end of the connection is the end of an answer that has no other. */
        if (got == 0 && c->state == READING && c->has_head && !c->is_chunked && c->left < 0) {
            c->closes = 1;
            answered(c);
        } else if (c->state == IDLE) close(c->fd);
        else fail(c);
        return;
    }
    bytes += (size_t)got;
    int judged = read_answer(c, buffer, (size_t)got, now());
    if (judged < 0) fail(c);
    else if (judged) answered(c);
}

/* ── all of them ─────────────────────────────────────────────────────────────────────── */

static void write_request(char **argv, int argc)
{
    FILE *file = fopen(argv[3], "rb");
    if (!file) { perror(argv[3]); exit(1); }
    fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file);
    rewind(file);
    request = grown(NULL, size + 16384);
    request_size = (size_t)sprintf(request, "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: */*\r\n"
        "Content-Type: application/json\r\nContent-Length: %zu\r\n", argv[2], port, size);
    for (int i = 8; i < argc; i++) request_size += (size_t)sprintf(request + request_size, "%s\r\n", argv[i]);
    request_size += (size_t)sprintf(request + request_size, "\r\n");
    request_size += fread(request + request_size, 1, size, file);
    fclose(file);
}

static void run(struct caller *callers, int count, ns_t grace, ns_t spread)
{
    struct epoll_event events[512];
    int called = 0;
    for (;;) {
        ns_t t = now();
        if (t >= ends + grace) return;
        for (; called < count && t < ends && t >= began + spread / (ns_t)count * (ns_t)called; called++)
            call(&callers[called]);
        if (t >= ends) {
            int waiting = 0;
            for (int i = 0; i < called; i++) waiting += callers[i].state != IDLE;
            if (!waiting) return;
        }
        int ready = epoll_wait(poller, events, 512, called < count ? 1 : 20);
        for (int i = 0; i < ready; i++) {
            struct caller *c = events[i].data.ptr;
            if (events[i].events & EPOLLERR) { fail(c); continue; }
            if (c->state == CONNECTING && events[i].events & EPOLLOUT) ask(c);
            else if (c->state == SENDING && events[i].events & EPOLLOUT) send_on(c);
            if (events[i].events & (EPOLLIN | EPOLLHUP)) read_on(c);
        }
    }
}

static void print(const char *name, struct samples *s)
{
    static const double wanted[] = {50, 90, 99, 100};
    static const char *names[] = {"p50", "p90", "p99", "max"};
    qsort(s->values, s->count, sizeof *s->values, by_value);
    printf(",\"%s\":{\"count\":%zu", name, s->count);
    for (int i = 0; i < 4 && s->count; i++)
        printf(",\"%s\":%.4f", names[i], s->values[(size_t)(wanted[i] / 100 * (double)(s->count - 1) + .5)]);
    printf("}");
}

int main(int argc, char **argv)
{
    if (argc < 8) {
        fprintf(stderr, "usage: load PORT PATH BODY_FILE CALLERS SECONDS GRACE_SECONDS SPREAD_SECONDS [HEADER ...]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    port = atoi(argv[1]);
    write_request(argv, argc);
    int count = atoi(argv[4]);
    struct caller *callers = calloc((size_t)count, sizeof *callers);
    if (!callers) abort();
    poller = epoll_create1(0);
    began = now();
    ends = began + (ns_t)(atof(argv[5]) * 1e9);
    run(callers, count, (ns_t)(atof(argv[6]) * 1e9), (ns_t)(atof(argv[7]) * 1e9));
    for (char *letter = refusal; *letter; letter++)
        if (*letter == '"' || *letter == '\\' || *letter < 32) *letter = ' ';
    printf("{\"seconds\":%.3f,\"ok\":%llu,\"refused\":%llu,\"errors\":%llu,\"tokens\":%llu,\"bytes\":%llu,\"refusal\":\"%s\"",
        (double)(now() - began) / 1e9, ok, refused, errors, tokens, bytes, refusal);
    print("answer_ms", &answers);
    print("first_token_ms", &firsts);
    print("token_ms", &latencies);
    print("jitter_ms", &jitters);
    printf("}\n");
    return 0;
}
