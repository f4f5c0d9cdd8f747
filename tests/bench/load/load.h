/* The bench's load: one thread, one epoll, mutual TLS 1.3 or plaintext, every answer read and checked.
 *
 *   load.c    what to do when: closed loop, new connections, open loop at a rate, held connections
 *   wire.c    one connection's socket and TLS
 *   answer.c  a strict reading of an HTTP/1.1 response, and whether it is the one that was asked for
 *   h2.c      the same for HTTP/2, several at once
 */
#ifndef LOAD_H
#define LOAD_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HEAD_MAX = 8192, ID_LENGTH = 36, LINE = 16 };

typedef enum { NO_CHECK, CHECK_ID, CHECK_LINES } check_kind;

typedef struct {
    const char *problem; /* NULL while all is well */
    enum { IN_HEAD, IN_BODY, IN_SIZE, IN_CHUNK, IN_CHUNK_END, IN_LAST, DONE } state;
    char head[HEAD_MAX];
    size_t head_length, line_length;
    uint64_t left, body; /* bytes of the body or chunk still to come; bytes of the body so far */
    char first[ID_LENGTH];
    bool chunked;
} answer;

typedef struct {
    uint64_t expected_length; /* of every body */
    check_kind check;
} expectation;

void answer_reset(answer *a);
/* Takes bytes; returns false where they are not the answer that was expected (a->problem says why). */
bool answer_take(answer *a, const expectation *e, const char *id, const char *data, size_t length);

/* The same where something else has read the framing: a piece of the body, and its end. */
bool answer_body(answer *a, const expectation *e, const char *data, size_t length);
bool answer_end(answer *a, const expectation *e, const char *id);

/* One request on an HTTP/2 connection. */
typedef struct {
    uint32_t stream; /* 0: none */
    uint64_t since;
    char id[ID_LENGTH];
    answer in;
} slot;
typedef struct session session;
typedef void finished(void *told, slot *f);

typedef struct connection {
    int fd;
    SSL *ssl; /* NULL in plaintext */
    enum { CLOSED, CONNECTING, HANDSHAKING, IDLE, BUSY } state;
    char *out;
    size_t out_length, out_sent, out_size;
    session *session; /* NULL in HTTP/1 */
    uint64_t since; /* ns: when the request was due */
    bool wants_write;
    answer in;
    const char *id;
    struct connection *next; /* of those that are idle */
} connection;

typedef struct {
    int epoll, port;
    SSL_CTX *tls; /* NULL: plaintext */
    const char *name; /* SNI */
} wires;

session *h2_open(connection *c, int streams);
slot *h2_ask(connection *c, char *frames, size_t length, const char *id);
/* Takes bytes and tells of each answer that is whole; returns what is wrong with them, or NULL. */
const char *h2_take(connection *c, const expectation *e, const char *data, size_t length, uint64_t *bytes,
                    finished *done, void *told);
void wire_append(connection *c, const char *data, size_t length);

SSL_CTX *tls_context(const char *certificate, const char *key, const char *root, const char *groups,
                     const char *suites, const char *alpn);
void wire_open(wires *w, connection *c);
void wire_close(wires *w, connection *c, bool politely);
/* Goes on with connecting, the handshake or writing. False where the connection broke. */
bool wire_advance(wires *w, connection *c);
bool wire_write(wires *w, connection *c);
/* > 0 bytes; 0 nothing now; -1 the other side finished or the connection broke. */
long wire_read(connection *c, char *buffer, size_t size);
void die(const char *what);

#endif
