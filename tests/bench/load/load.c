/* What to do when. Prints BEGIN when the measured time begins, and one line of JSON when it has ended.
 *
 *   keep   each connection sends its next request when the last one is answered
 *   fresh  the same, each request on a new connection
 *   rate   open loop: requests are due at fixed times, whatever the answers do; latency counts from when they were due
 *   hold   one request on each connection; prints HELD and keeps them until standard input ends
 */
#define _GNU_SOURCE /* memmem */
#include "load.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define ID_BEGINS "7f3a0b1c-9c1f-4e0d-8f2a-" /* what every request id begins with */
enum { MARK = 12, EVENTS = 64, AT_ONCE = 16, SAMPLES = 8 << 20, TOO_MANY = 1000, PATIENCE = 120 };
typedef enum { KEEP, FRESH, RATE, HOLD } mode;

static mode what = KEEP;
static wires w = {.name = "orders"};
static expectation expected = {.check = CHECK_ID};
static connection *all, *idle_first, *idle_last;
static int connections = 64, timer = -1;
static double seconds = 5, warm = 1, rate;
static char *template, *greeting, *first_template, buffer[1 << 18];
static size_t template_length, greeting_length, first_length;
static int streams; /* at once on each connection; 0: HTTP/1 */
static uint64_t counter, answers, errors, bytes, opened, answered_once, start, end, due, gap;
static uint32_t *latency;
static uint64_t *backlog, backlog_first, backlog_last;
static bool measuring;

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Write a number of its own at every mark of a request. */
static void number_request(char *at, size_t length) {
    char number[MARK + 1], *end = at + length;
    snprintf(number, sizeof number, "%012llx", (unsigned long long)counter++);
    while ((at = memmem(at, (size_t)(end - at), "~~~~~~~~~~~~", MARK))) memcpy(at, number, MARK);
}

/* As many requests as a connection of HTTP/2 has place for. */
static void ask_on(connection *c, bool first) {
    const char *from = first ? first_template : template;
    size_t length = first ? first_length : template_length;
    static char frames[1 << 16];
    memcpy(frames, from, length);
    number_request(frames, length);
    char *id = memmem(frames, length, ID_BEGINS, strlen(ID_BEGINS));
    h2_ask(c, frames, length, id)->since = now();
}

/* A request with a number of its own at every mark of the template. */
static void send_request(connection *c, uint64_t since) {
    memcpy(c->out, template, template_length);
    number_request(c->out, template_length);
    c->out_length = template_length;
    c->out_sent = 0;
    c->since = since;
    c->state = BUSY;
    answer_reset(&c->in);
}

static void problem(const char *why) {
    if (!errors++) fprintf(stderr, "load: %s\n", why);
    if (errors == TOO_MANY) die("too many errors");
}

static void again(connection *c, bool politely) {
    wire_close(&w, c, politely);
    wire_open(&w, c);
}

static void to_idle(connection *c) {
    c->state = IDLE;
    c->next = NULL;
    if (idle_last) idle_last->next = c;
    else idle_first = c;
    idle_last = c;
}

static void write_now(connection *c) {
    if (!wire_write(&w, c)) {
        problem("a connection broke while a request was written");
        again(c, false);
    }
}

/* This connection has nothing to do. */
static void next_request(connection *c) {
    if (streams) {
        h2_open(c, streams);
        wire_append(c, greeting, greeting_length);
        for (int i = 0; i < streams; i++) ask_on(c, i == 0);
        c->state = BUSY;
        write_now(c);
        return;
    }
    if (what == RATE && backlog_first == backlog_last) {
        to_idle(c);
        return;
    }
    send_request(c, what == RATE ? backlog[backlog_first++ % SAMPLES] : now());
    write_now(c);
}

static void count(uint64_t since) {
    if (!measuring) return;
    uint64_t took = (now() - since) / 1000;
    if (answers < SAMPLES) latency[answers] = took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
    answers++;
}

static void stream_done(void *c, slot *f) {
    count(f->since);
    ask_on(c, false);
}

static void done(connection *c) {
    count(c->since);
    if (what == HOLD) {
        c->state = IDLE;
        answered_once++;
        if (opened < (uint64_t)connections) wire_open(&w, &all[opened++]);
    } else if (what == FRESH) {
        again(c, true);
    } else {
        next_request(c);
    }
}

static void readable(connection *c) {
    for (;;) {
        long length = wire_read(c, buffer, sizeof buffer);
        if (!length) return;
        if (length < 0 || c->state != BUSY) {
            problem(length < 0 ? "a connection was closed by the other side" : "bytes that nobody asked for");
            again(c, false);
            return;
        }
        if (streams) {
            uint64_t body = 0;
            const char *why = h2_take(c, &expected, buffer, (size_t)length, &body, stream_done, c);
            if (measuring) bytes += body;
            if (why) {
                problem(why);
                again(c, false);
                return;
            }
            write_now(c);
            if (c->state != BUSY) return;
            continue;
        }
        uint64_t before = c->in.body;
        if (!answer_take(&c->in, &expected, c->id, buffer, (size_t)length)) {
            problem(c->in.problem);
            again(c, false);
            return;
        }
        if (measuring) bytes += c->in.body - before;
        if (c->in.state == DONE) {
            done(c);
            return;
        }
    }
}

static void serve(connection *c, uint32_t events) {
    bool starting = c->state == CONNECTING || c->state == HANDSHAKING;
    if (starting || (events & EPOLLOUT)) {
        if (!wire_advance(&w, c)) {
            problem(starting ? "a connection could not be made" : "a connection broke");
            again(c, false);
            return;
        }
        if (starting && c->state == IDLE) next_request(c);
        if (starting) return;
    }
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(c);
}

static void set_timer(uint64_t at) {
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)(at / 1000000000u), .tv_nsec = (long)(at % 1000000000u)}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
}

/* Open loop: whatever is due by now is sent, or waits in the backlog for a connection. */
static void tick(void) {
    uint64_t ignored, time = now();
    if (read(timer, &ignored, sizeof ignored) < 0) return;
    for (; due <= time; due += gap) {
        connection *c = idle_first;
        if (!c) {
            backlog[backlog_last++ % SAMPLES] = due;
            continue;
        }
        idle_first = c->next;
        if (!idle_first) idle_last = NULL;
        send_request(c, due);
        write_now(c);
    }
    set_timer(due);
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double percentile(double share) {
    uint64_t known = answers < SAMPLES ? answers : SAMPLES;
    return known ? latency[(uint64_t)(share * (double)(known - 1))] / 1000.0 : 0;
}

static void report(void) {
    qsort(latency, answers < SAMPLES ? answers : SAMPLES, sizeof *latency, by_size);
    printf("{\"requests\": %llu, \"errors\": %llu, \"bytes\": %llu, \"seconds\": %.6f, \"p50_ms\": %.3f, "
           "\"p90_ms\": %.3f, \"p99_ms\": %.3f, \"p999_ms\": %.3f, \"max_ms\": %.3f, \"backlog\": %llu}\n",
           (unsigned long long)answers, (unsigned long long)errors, (unsigned long long)bytes,
           (double)(now() - start) / 1e9, percentile(.5), percentile(.9), percentile(.99), percentile(.999),
           percentile(1), (unsigned long long)(backlog_last - backlog_first));
    fflush(stdout);
}

static void begin(void) {
    start = now();
    end = start + (uint64_t)(seconds * 1e9);
    measuring = true;
    puts("BEGIN");
    fflush(stdout);
}

static void run(void) {
    struct epoll_event events[EVENTS];
    uint64_t warm_until = now() + (uint64_t)(warm * 1e9);
    bool held = false;
    for (;;) {
        uint64_t time = now();
        if (!measuring && what != HOLD && time >= warm_until) begin();
        if (measuring && time >= end) return report();
        int count = epoll_wait(w.epoll, events, EVENTS, 50);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr == &timer) tick();
            else if (events[i].data.ptr == &w) return; /* standard input has ended */
            else serve(events[i].data.ptr, events[i].events);
        }
        if (what == HOLD && !held && answered_once == (uint64_t)connections) {
            printf("HELD %llu\n", (unsigned long long)errors);
            fflush(stdout);
            held = true;
            alarm(0);
        }
    }
}

static char *read_file(const char *path, size_t *length) {
    FILE *file = fopen(path, "rb");
    if (!file) die("the request cannot be read");
    char *data = calloc(1, 1 << 16);
    *length = fread(data, 1, (1 << 16) - 1, file);
    fclose(file);
    return data;
}

static void options(int argc, char **argv) {
    static struct option names[] = {{"port", 1, 0, 'p'},  {"connections", 1, 0, 'n'}, {"seconds", 1, 0, 's'},
                                    {"warm", 1, 0, 'w'},  {"certificate", 1, 0, 'c'}, {"key", 1, 0, 'k'},
                                    {"root", 1, 0, 'a'},  {"groups", 1, 0, 'g'},      {"suites", 1, 0, 'u'},
                                    {"rate", 1, 0, 'r'},  {"request", 1, 0, 'q'},     {"length", 1, 0, 'l'},
                                    {"check", 1, 0, 'x'}, {"mode", 1, 0, 'm'},        {"alpn", 1, 0, 'z'},
                                    {"streams", 1, 0, 'h'}, {"greeting", 1, 0, 'y'}, {"first", 1, 0, 'f'},
                                    {0, 0, 0, 0}};
    const char *certificate = NULL, *key = NULL, *root = NULL, *groups = "X25519", *suites = "TLS_AES_256_GCM_SHA384";
    const char *alpn = "http/1.1";
    for (int o; (o = getopt_long(argc, argv, "", names, NULL)) != -1;) switch (o) {
        case 'p': w.port = atoi(optarg); break;
        case 'n': connections = atoi(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'w': warm = atof(optarg); break;
        case 'c': certificate = optarg; break;
        case 'k': key = optarg; break;
        case 'a': root = optarg; break;
        case 'g': groups = optarg; break;
        case 'u': suites = optarg; break;
        case 'r': rate = atof(optarg); break;
        case 'q': template = read_file(optarg, &template_length); break;
        case 'y': greeting = read_file(optarg, &greeting_length); break;
        case 'f': first_template = read_file(optarg, &first_length); break;
        case 'h': streams = atoi(optarg); break;
        case 'l': expected.expected_length = strtoull(optarg, NULL, 10); break;
        case 'x': expected.check = strcmp(optarg, "lines") ? strcmp(optarg, "id") ? NO_CHECK : CHECK_ID : CHECK_LINES; break;
        case 'm': what = !strcmp(optarg, "fresh") ? FRESH : !strcmp(optarg, "rate") ? RATE : !strcmp(optarg, "hold") ? HOLD : KEEP; break;
        case 'z': alpn = strcmp(optarg, "none") ? optarg : ""; break;
        default: exit(2);
        }
    if (!template || !w.port) die("--port and --request are needed");
    if (certificate) w.tls = tls_context(certificate, key, root, groups, suites, alpn);
}

int main(int argc, char **argv) {
    options(argc, argv);
    char *id = streams ? NULL : strstr(template, "X-Request-Id: ");
    if (!streams && !id && expected.check == CHECK_ID) die("the request has no X-Request-Id");
    w.epoll = epoll_create1(EPOLL_CLOEXEC);
    latency = calloc(SAMPLES, sizeof *latency);
    backlog = calloc(SAMPLES, sizeof *backlog);
    all = calloc((size_t)connections, sizeof *all);
    counter = (uint64_t)getpid() << 24;
    for (int i = 0; i < connections; i++) {
        all[i].out = calloc(1, all[i].out_size = template_length + 1);
        if (id) all[i].id = all[i].out + (id - template) + strlen("X-Request-Id: ");
    }
    alarm((unsigned)(seconds + warm) + PATIENCE); /* rather no figure than none for ever */
    int first = what == HOLD && connections > AT_ONCE ? AT_ONCE : connections;
    for (opened = 0; opened < (uint64_t)first; opened++) wire_open(&w, &all[opened]);
    if (what == HOLD) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &w};
        epoll_ctl(w.epoll, EPOLL_CTL_ADD, 0, &event);
    }
    if (what == RATE) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &timer};
        timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
        gap = (uint64_t)(1e9 / rate);
        due = now() + 100000000u;
        epoll_ctl(w.epoll, EPOLL_CTL_ADD, timer, &event);
        set_timer(due);
    }
    run();
    return errors ? 1 : 0;
}
