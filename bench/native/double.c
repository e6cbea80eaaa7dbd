/* A model backend's double, in C so that it is never what a measurement waits for: Ollama and OpenAI, plain and
 * streamed.
 *
 *     double PORT MODEL:CHUNKS:DELAY_MS ...
 *
 * Serves POST /v1/chat/completions and /api/chat, and the lists of its models. A stream has CHUNKS chunks, one
 * write each, DELAY_MS apart (0: as fast as they go). Each carries the time of its sending, "@" and 16 hex digits
 * of nanoseconds of CLOCK_MONOTONIC, by which whoever reads it behind a gateway knows how long it took.
 *
 * One thread and epoll; requests of any size with Content-Length or in chunks; none pipelined.
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
enum surface { OPENAI, OLLAMA };

struct model { char name[64]; int chunks; ns_t delay; };

struct connection {
    int fd, active;            /* its place among the streams under way, or -1 */
    char *in, *out;
    size_t in_size, in_room, out_size, out_sent, out_room;
    int wants_out;
    enum surface surface;
    const struct model *model;
    int chunks_left;
    ns_t due;
};

static struct model models[64];
static int model_count;
static struct connection **streams;
static int stream_count, stream_room;
static int poller;

#define ANSWER "Hello! How can I assist you today? The sky appears blue because molecules in the atmosphere " \
    "scatter short wavelengths of light much more strongly than long ones."

static ns_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (ns_t)t.tv_sec * 1000000000ull + (ns_t)t.tv_nsec;
}

static void *grown(void *memory, size_t bytes)
{
    memory = realloc(memory, bytes);
    if (!memory) abort();
    return memory;
}

/* ── writing ─────────────────────────────────────────────────────────────────────────── */

static void put(struct connection *c, const char *bytes, size_t size)
{
    if (c->out_size + size > c->out_room) {
        while (c->out_room < c->out_size + size) c->out_room = c->out_room ? 2 * c->out_room : 4096;
        c->out = grown(c->out, c->out_room);
    }
    memcpy(c->out + c->out_size, bytes, size);
    c->out_size += size;
}

static void want_out(struct connection *c, int wanted)
{
    if (c->wants_out == wanted) return;
    c->wants_out = wanted;
    struct epoll_event e = {.events = EPOLLIN | (wanted ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &e);
}

/* Returns -1 when the other side is gone. */
static int flush(struct connection *c)
{
    while (c->out_sent < c->out_size) {
        ssize_t sent = send(c->fd, c->out + c->out_sent, c->out_size - c->out_sent, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) { want_out(c, 1); return 0; }
        if (sent < 0) return -1;
        c->out_sent += (size_t)sent;
    }
    c->out_sent = c->out_size = 0;
    want_out(c, 0);
    return 0;
}

static void put_whole(struct connection *c, const char *body)
{
    char head[160];
    int size = snprintf(head, sizeof head,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n", strlen(body));
    put(c, head, (size_t)size);
    put(c, body, strlen(body));
}

static void put_answer(struct connection *c)
{
    char body[1024];
    if (c->surface == OPENAI)
        snprintf(body, sizeof body,
            "{\"id\":\"chatcmpl-123456\",\"object\":\"chat.completion\",\"created\":1728933352,\"model\":\"%s\","
            "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"" ANSWER "\"},"
            "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":26,\"completion_tokens\":33,"
            "\"total_tokens\":59}}\n", c->model->name);
    else
        snprintf(body, sizeof body,
            "{\"model\":\"%s\",\"created_at\":\"2026-01-12T14:13:43.416799Z\",\"message\":{\"role\":\"assistant\","
            "\"content\":\"" ANSWER "\"},\"done_reason\":\"stop\",\"done\":true,\"total_duration\":5191566416,"
            "\"load_duration\":2154458,\"prompt_eval_count\":26,\"prompt_eval_duration\":383809000,"
            "\"eval_count\":33,\"eval_duration\":4799921000}\n", c->model->name);
    put_whole(c, body);
}

static int openai_chunk(struct connection *c, char *text, size_t room)
{
    const char *last = c->chunks_left ? "null" : "\"stop\"";
    int size = snprintf(text, room,
        "data: {\"id\":\"chatcmpl-123456\",\"object\":\"chat.completion.chunk\",\"created\":1728933352,"
        "\"model\":\"%s\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"@%016llx\"},"
        "\"finish_reason\":%s}]}\n\n", c->model->name, now(), last);
    if (!c->chunks_left)
        size += snprintf(text + size, room - (size_t)size,
            "data: {\"id\":\"chatcmpl-123456\",\"object\":\"chat.completion.chunk\",\"created\":1728933352,"
            "\"model\":\"%s\",\"choices\":[],\"usage\":{\"prompt_tokens\":26,\"completion_tokens\":%d,"
            "\"total_tokens\":%d}}\n\ndata: [DONE]\n\n",
            c->model->name, c->model->chunks, 26 + c->model->chunks);
    return size;
}

static int ollama_chunk(struct connection *c, char *text, size_t room)
{
    int size = snprintf(text, room,
        "{\"model\":\"%s\",\"created_at\":\"2026-01-12T14:13:43.416799Z\",\"message\":{\"role\":\"assistant\","
        "\"content\":\"@%016llx\"},", c->model->name, now());
    if (c->chunks_left)
        return size + snprintf(text + size, room - (size_t)size, "\"done\":false}\n");
    return size + snprintf(text + size, room - (size_t)size,
        "\"done_reason\":\"stop\",\"done\":true,\"total_duration\":5191566416,\"load_duration\":2154458,"
        "\"prompt_eval_count\":26,\"prompt_eval_duration\":383809000,\"eval_count\":%d,"
        "\"eval_duration\":4799921000}\n", c->model->chunks);
}

static void put_chunk(struct connection *c)
{
    char text[1200], length[32];
    c->chunks_left--;
    int size = c->surface == OPENAI ? openai_chunk(c, text, sizeof text) : ollama_chunk(c, text, sizeof text);
    put(c, length, (size_t)snprintf(length, sizeof length, "%x\r\n", size));
    put(c, text, (size_t)size);
    put(c, "\r\n", 2);
    if (!c->chunks_left) put(c, "0\r\n\r\n", 5);
}

static void put_list(struct connection *c, const char *path)
{
    static char body[16384];
    size_t size = 0;
    int is_openai = !strncmp(path, "/v1/", 4), is_loaded = !strncmp(path, "/api/ps", 7);
    size += (size_t)sprintf(body, is_openai ? "{\"object\":\"list\",\"data\":[" : "{\"models\":[");
    for (int i = 0; i < model_count && !is_loaded; i++)
        size += (size_t)sprintf(body + size, is_openai
            ? "%s{\"id\":\"%s\",\"object\":\"model\",\"created\":1728933352,\"owned_by\":\"bench\"}"
            : "%s{\"name\":\"%s:latest\",\"model\":\"%s:latest\",\"modified_at\":\"2026-01-12T14:13:43Z\",\"size\":1,"
              "\"digest\":\"baf6a787fdffd633537aa2eb51cfd54cb93ff08e28040095462bb63daf552878\","
              "\"details\":{\"format\":\"gguf\",\"family\":\"llama\"}}",
            i ? "," : "", models[i].name, models[i].name);
    sprintf(body + size, "]}");
    put_whole(c, body);
}

/* ── streams under way ───────────────────────────────────────────────────────────────── */

static void begin_stream(struct connection *c)
{
    const char *head = c->surface == OPENAI
        ? "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        : "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n";
    put(c, head, strlen(head));
    c->chunks_left = c->model->chunks;
    c->due = now();
    if (stream_count == stream_room) {
        stream_room = stream_room ? 2 * stream_room : 1024;
        streams = grown(streams, (size_t)stream_room * sizeof *streams);
    }
    c->active = stream_count;
    streams[stream_count++] = c;
}

static void end_stream(struct connection *c)
{
    if (c->active < 0) return;
    streams[c->active] = streams[--stream_count];
    streams[c->active]->active = c->active;
    c->active = -1;
}

static void hang_up(struct connection *c)
{
    end_stream(c);
    close(c->fd);
    free(c->in);
    free(c->out);
    free(c);
}

static int is_due(const struct connection *c, ns_t t) { return c->model->delay ? c->due <= t : !c->wants_out; }

static void stream_on(void)
{
    ns_t t = now();
    for (int i = 0; i < stream_count; i++) {
        struct connection *c = streams[i];
        if (!is_due(c, t)) continue;
        c->due += c->model->delay;
        put_chunk(c);
        int is_over = !c->chunks_left;
        if (is_over) end_stream(c);
        if (flush(c) < 0) { hang_up(c); is_over = 1; }
        if (is_over) i--;
    }
}

/* Milliseconds until a stream has something to send; -1: none has. */
static int patience(void)
{
    ns_t t = now(), first = ~0ull;
    for (int i = 0; i < stream_count; i++) {
        if (is_due(streams[i], t)) return 0;
        if (streams[i]->model->delay && streams[i]->due < first) first = streams[i]->due;
    }
    return first == ~0ull ? -1 : (int)((first - t) / 1000000ull) + 1;
}

/* ── reading ─────────────────────────────────────────────────────────────────────────── */

static const struct model *model_in(const char *body, size_t size)
{
    const char *found = memmem(body, size, "\"model\"", 7);
    if (found) {
        const char *end = body + size, *name = memchr(found + 7, '"', (size_t)(end - found - 7));
        if (name)
            for (int i = 0; i < model_count; i++) {
                size_t length = strlen(models[i].name);
                if ((size_t)(end - name) > length + 1 && !strncmp(name + 1, models[i].name, length)
                    && (name[1 + length] == '"' || name[1 + length] == ':'))
                    return &models[i];
            }
    }
    return models;
}

static int is_streamed(enum surface surface, const char *body, size_t size)
{
    const char *found = memmem(body, size, "\"stream\":", 9);
    if (!found) return surface == OLLAMA;
    found += 9;
    while (*found == ' ') found++;
    return *found == 't';
}

static void serve(struct connection *c, const char *path, const char *body, size_t size)
{
    int is_openai = !strncmp(path, "/v1/chat/completions", 20) || !strncmp(path, "/chat/completions", 17);
    if (!is_openai && strncmp(path, "/api/chat", 9)) {
        if (!strncmp(path, "/api/show", 9))
            put_whole(c, "{\"details\":{\"family\":\"llama\"},\"model_info\":{},\"capabilities\":[\"completion\"]}");
        else
            put_list(c, path);
        return;
    }
    c->surface = is_openai ? OPENAI : OLLAMA;
    c->model = model_in(body, size);
    if (is_streamed(c->surface, body, size)) begin_stream(c);
    else put_answer(c);
}

/* How many bytes the request at the start of what was read has, or 0 when its end has not come. */
static size_t request_size(struct connection *c, char **body, size_t *body_size)
{
    char *end = memmem(c->in, c->in_size, "\r\n\r\n", 4);
    if (!end) return 0;
    *body = end + 4;
    size_t head = (size_t)(*body - c->in);
    *end = 0;
    char *length = strcasestr(c->in, "\r\ncontent-length:");
    char *chunked = strcasestr(c->in, "\r\ntransfer-encoding:");
    *end = '\r';
    *body_size = length ? strtoul(length + 17, NULL, 10) : 0;
    if (!chunked) return c->in_size < head + *body_size ? 0 : head + *body_size;
    char *last = memmem(*body, c->in_size - head, "0\r\n\r\n", 5);
    if (!last) return 0;
    *body_size = (size_t)(last - *body);
    return head + *body_size + 5;
}

/* Returns -1 when the connection is over. */
static int read_on(struct connection *c)
{
    if (c->in_room - c->in_size < 65536) {
        c->in_room = c->in_room ? 2 * c->in_room : 131072;
        c->in = grown(c->in, c->in_room);
    }
    ssize_t got = recv(c->fd, c->in + c->in_size, c->in_room - c->in_size - 1, 0);
    if (got == 0 || (got < 0 && errno != EAGAIN)) return -1;
    if (got > 0) c->in_size += (size_t)got;
    while (c->in_size && c->active < 0) {
        char *body;
        size_t body_size;
        c->in[c->in_size] = 0;
        size_t size = request_size(c, &body, &body_size);
        if (!size) return 0;
        char *path = memchr(c->in, ' ', size);
        if (!path) return -1;
        serve(c, path + 1, body, body_size);
        if (flush(c) < 0) return -1;
        memmove(c->in, c->in + size, c->in_size - size);
        c->in_size -= size;
    }
    return 0;
}

static void answer_call(int listener)
{
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct connection *c = calloc(1, sizeof *c);
        if (!c) abort();
        c->fd = fd;
        c->active = -1;
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e);
    }
}

static int listening(int port)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    inet_aton("127.0.0.1", &at.sin_addr);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 4096)) { perror("double"); exit(1); }
    return fd;
}

int main(int argc, char **argv)
{
    if (argc < 3) { fprintf(stderr, "usage: double PORT MODEL:CHUNKS:DELAY_MS ...\n"); return 2; }
    for (int i = 2; i < argc && model_count < 64; i++) {
        struct model *m = &models[model_count++];
        unsigned delay_ms = 0;
        if (sscanf(argv[i], "%63[^:]:%d:%u", m->name, &m->chunks, &delay_ms) != 3 || m->chunks < 1) return 2;
        m->delay = delay_ms * 1000000ull;
    }
    signal(SIGPIPE, SIG_IGN);
    poller = epoll_create1(0);
    int listener = listening(atoi(argv[1]));
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL}, events[512];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &e);
    for (;;) {
        int count = epoll_wait(poller, events, 512, patience());
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            if (!c) { answer_call(listener); continue; }
            int is_dead = events[i].events & EPOLLOUT ? flush(c) < 0 : 0;
            if (!is_dead && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) is_dead = read_on(c) < 0;
            if (is_dead) hang_up(c);
        }
        stream_on();
    }
}
