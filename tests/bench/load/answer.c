/* A strict reading of an HTTP/1.1 response: 200, framed, of the length that was asked for, and for this very request.
 *
 * Bodies of the back end begin with the request's X-Request-Id (CHECK_ID), so that a crossed answer is seen, or consist
 * of lines of 16 bytes that name their own offset in hexadecimal (CHECK_LINES), of which each read checks one.
 */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void answer_reset(answer *a) {
    a->problem = NULL;
    a->state = IN_HEAD;
    a->head_length = a->line_length = 0;
    a->left = a->body = 0;
    a->chunked = false;
}

static bool fail(answer *a, const char *why) {
    a->problem = why;
    return false;
}

static bool complain(answer *a, const char *format, const char *seen) {
    static char said[128];
    snprintf(said, sizeof said, format, seen);
    return fail(a, said);
}

static bool read_head(answer *a, const expectation *e) {
    char *line, *rest = a->head;
    bool framed = false;
    a->head[a->head_length - 2] = 0;
    if (strncmp(a->head, "HTTP/1.1 200", 12)) {
        return complain(a, "not a 200: %.60s", a->head);
    }
    strsep(&rest, "\n");
    while ((line = strsep(&rest, "\n")) && *line) {
        if (!strncasecmp(line, "content-length:", 15)) {
            a->left = strtoull(line + 15, NULL, 10);
            if (framed || a->left != e->expected_length) return complain(a, "the wrong Content-Length: %.60s", line);
            framed = true;
        } else if (!strncasecmp(line, "transfer-encoding: chunked", 26)) {
            if (framed) return fail(a, "framed twice");
            framed = a->chunked = true;
        }
    }
    if (!framed) return fail(a, "not framed");
    a->state = a->chunked ? IN_SIZE : IN_BODY;
    return true;
}

bool answer_body(answer *a, const expectation *e, const char *data, size_t length) {
    if (e->check == CHECK_LINES) { /* the first whole line of these bytes */
        uint64_t at = (a->body + LINE - 1) / LINE * LINE;
        char line[LINE + 2];
        size_t skip = at - a->body;
        if (skip + LINE <= length) {
            snprintf(line, sizeof line, "%015llx\n", (unsigned long long)at);
            if (memcmp(data + skip, line, LINE)) return fail(a, "bytes of another place");
        }
    } else if (e->check == CHECK_ID && a->body < ID_LENGTH) {
        size_t take = ID_LENGTH - a->body < length ? ID_LENGTH - a->body : length;
        memcpy(a->first + a->body, data, take);
    }
    a->body += length;
    return true;
}

bool answer_end(answer *a, const expectation *e, const char *id) {
    if (a->body != e->expected_length) return fail(a, "a body of the wrong length");
    if (e->check == CHECK_ID && memcmp(a->first, id, ID_LENGTH)) return fail(a, "somebody else's answer");
    a->state = DONE;
    return true;
}

/* One byte of the lines around chunks. */
static bool frame_byte(answer *a, const expectation *e, const char *id, char byte) {
    if (a->state == IN_CHUNK_END) {
        if (byte == '\n') a->state = IN_SIZE;
        else if (byte != '\r') return fail(a, "a chunk without an end");
    } else if (a->state == IN_SIZE && byte == '\n') {
        a->state = a->left ? IN_CHUNK : IN_LAST;
        if (!a->line_length) return fail(a, "a chunk without a size");
        a->line_length = 0;
    } else if (a->state == IN_SIZE && byte != '\r') {
        const char *digits = "0123456789abcdef", *digit = strchr(digits, byte | 0x20);
        if (!digit || a->line_length++ > 8) return fail(a, "no chunk size");
        a->left = a->left * 16 + (uint64_t)(digit - digits);
    } else if (a->state == IN_LAST) {
        if (byte == '\n') return answer_end(a, e, id);
        if (byte != '\r') return fail(a, "a trailer");
    }
    return true;
}

bool answer_take(answer *a, const expectation *e, const char *id, const char *data, size_t length) {
    while (length) {
        if (a->state == DONE) return fail(a, "bytes after the answer");
        if (a->state == IN_HEAD) {
            if (a->head_length == HEAD_MAX) return fail(a, "a head too large");
            a->head[a->head_length++] = *data++;
            length--;
            if (a->head_length >= 4 && !memcmp(a->head + a->head_length - 4, "\r\n\r\n", 4) && !read_head(a, e)) return false;
        } else if (a->state == IN_BODY || a->state == IN_CHUNK) {
            size_t take = a->left < length ? a->left : length;
            if (!answer_body(a, e, data, take)) return false;
            data += take, length -= take, a->left -= take;
            if (a->left) continue;
            if (a->state == IN_CHUNK) a->state = IN_CHUNK_END;
            else if (!answer_end(a, e, id)) return false;
        } else {
            if (!frame_byte(a, e, id, *data++)) return false;
            length--;
        }
    }
    return true;
}
