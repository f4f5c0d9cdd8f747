/* HTTP/2 for the load: several requests at once on a connection, each answer read and checked like those of HTTP/1.
 *
 * What is sent has been made by http2.py: preface and settings, a first request that fills the table of HPACK, and one that
 * uses it. Of what comes, frames are taken apart here; of a head only its first byte is looked at, which for a 200 is
 * always 0x88 (RFC 7541 appendix A: the static table's :status 200).
 */
#include "load.h"

#include <stdlib.h>
#include <string.h>

enum { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION };
enum { FRAME_HEADER = 9, PAYLOAD_MAX = 1 << 14, END_STREAM = 1, ACK = 1, END_HEADERS = 4, GIVE_BACK = 1 << 24 };

struct session {
    unsigned char header[FRAME_HEADER], payload[PAYLOAD_MAX];
    size_t have, size, taken; /* of the header; the payload's length; how much of it is here */
    uint32_t next_stream, unreturned;
    const char *problem;
    int streams;
    slot slots[];
};

static uint32_t word(const unsigned char *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void put_word(char *at, uint32_t value) {
    at[0] = (char)(value >> 24), at[1] = (char)(value >> 16), at[2] = (char)(value >> 8), at[3] = (char)value;
}

void wire_append(connection *c, const char *data, size_t length) {
    if (c->out_sent == c->out_length) c->out_sent = c->out_length = 0;
    if (c->out_length + length > c->out_size) {
        c->out_size = (c->out_length + length) * 2;
        c->out = realloc(c->out, c->out_size);
    }
    memcpy(c->out + c->out_length, data, length);
    c->out_length += length;
}

session *h2_open(connection *c, int streams) {
    session *s = c->session;
    if (!s) s = c->session = calloc(1, sizeof *s + (size_t)streams * sizeof(slot));
    memset(s, 0, sizeof *s);
    s->streams = streams;
    s->next_stream = 1;
    c->out_sent = c->out_length = 0;
    for (int i = 0; i < streams; i++) s->slots[i].stream = 0;
    return s;
}

/* Gives every frame of these bytes the next stream's number, and remembers whose answer it will be. */
slot *h2_ask(connection *c, char *frames, size_t length, const char *id) {
    session *s = c->session;
    slot *free_one = NULL;
    for (int i = 0; i < s->streams && !free_one; i++) if (!s->slots[i].stream) free_one = &s->slots[i];
    if (!free_one) die("no free stream");
    for (size_t at = 0; at < length; at += FRAME_HEADER + (word((unsigned char *)frames + at) >> 8))
        put_word(frames + at + 5, s->next_stream);
    free_one->stream = s->next_stream;
    s->next_stream += 2;
    if (id) memcpy(free_one->id, id, ID_LENGTH);
    answer_reset(&free_one->in);
    wire_append(c, frames, length);
    return free_one;
}

static bool wrong(session *s, const char *why) {
    s->problem = why;
    return false;
}

static void say(connection *c, int kind, int flags, uint32_t stream, const char *payload, size_t length) {
    char header[FRAME_HEADER] = {0, 0, (char)length, (char)kind, (char)flags};
    put_word(header + 5, stream);
    wire_append(c, header, sizeof header);
    wire_append(c, payload, length);
}

static slot *find(session *s, uint32_t stream) {
    for (int i = 0; i < s->streams; i++) if (s->slots[i].stream == stream) return &s->slots[i];
    return NULL;
}

static bool end_of(session *s, slot *f, const expectation *e, finished *done, void *told) {
    if (!answer_end(&f->in, e, f->id)) return wrong(s, f->in.problem);
    f->stream = 0;
    done(told, f);
    return true;
}

/* A piece of a body, as it comes. */
static bool on_data(connection *c, session *s, const expectation *e, const char *data, size_t length, uint64_t *bytes) {
    slot *f = find(s, word(s->header + 5) & 0x7fffffff);
    char back[4];
    if (s->header[4] & 8) return wrong(s, "padding");
    if (!f || f->in.state != IN_BODY) return wrong(s, "a body that nobody asked for");
    if (!answer_body(&f->in, e, data, length)) return wrong(s, f->in.problem);
    *bytes += length;
    s->unreturned += length;
    if (s->unreturned >= GIVE_BACK) { /* the windows are of a gigabyte: both get back what this stream took, or more */
        put_word(back, s->unreturned);
        say(c, WINDOW_UPDATE, 0, 0, back, 4);
        say(c, WINDOW_UPDATE, 0, f->stream, back, 4);
        s->unreturned = 0;
    }
    return true;
}

static bool on_frame(connection *c, session *s, const expectation *e, finished *done, void *told) {
    int kind = s->header[3], flags = s->header[4];
    uint32_t stream = word(s->header + 5) & 0x7fffffff;
    slot *f = stream ? find(s, stream) : NULL;
    if (kind == HEADERS) {
        if (!f || !(flags & END_HEADERS)) return wrong(s, "a head that nobody asked for, or in pieces");
        if (f->in.state == IN_HEAD) {
            if (!s->size || s->payload[0] != 0x88) return wrong(s, "not a 200");
            f->in.state = IN_BODY;
        } else if (!(flags & END_STREAM)) {
            return wrong(s, "two heads");
        }
        return !(flags & END_STREAM) || end_of(s, f, e, done, told);
    }
    if (kind == DATA) return !(flags & END_STREAM) || (f && end_of(s, f, e, done, told)) || wrong(s, s->problem ? s->problem : "an end of nothing");
    if (kind == SETTINGS && !(flags & ACK)) say(c, SETTINGS, ACK, 0, "", 0);
    if (kind == PING && !(flags & ACK)) say(c, PING, ACK, 0, (char *)s->payload, 8);
    if (kind == RST_STREAM) return wrong(s, "a stream was reset");
    if (kind == GOAWAY) return wrong(s, "the other side leaves (GOAWAY)");
    return true;
}

const char *h2_take(connection *c, const expectation *e, const char *data, size_t length, uint64_t *bytes,
                    finished *done, void *told) {
    session *s = c->session;
    while (length || (s->have == FRAME_HEADER && s->taken == s->size)) {
        if (s->have < FRAME_HEADER) {
            s->header[s->have++] = (unsigned char)*data++;
            length--;
            if (s->have < FRAME_HEADER) continue;
            s->size = word(s->header) >> 8;
            s->taken = 0;
            if (s->size > PAYLOAD_MAX) return "a frame too large";
        }
        size_t take = s->size - s->taken < length ? s->size - s->taken : length;
        if (take && s->header[3] == DATA) {
            if (!on_data(c, s, e, data, take, bytes)) return s->problem;
        } else {
            memcpy(s->payload + s->taken, data, take);
        }
        data += take, length -= take, s->taken += take;
        if (s->taken < s->size) return NULL;
        s->have = 0;
        if (!on_frame(c, s, e, done, told)) return s->problem;
    }
    return NULL;
}
