/* One connection's socket and TLS. No session is ever reused, and the key exchange is the one group we are told. */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

void die(const char *what) {
    fprintf(stderr, "load: %s\n", what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

SSL_CTX *tls_context(const char *certificate, const char *key, const char *root, const char *groups,
                     const char *suites, const char *alpn) {
    SSL_CTX *tls = SSL_CTX_new(TLS_client_method());
    if (!tls || !SSL_CTX_set_min_proto_version(tls, TLS1_3_VERSION) || !SSL_CTX_set1_groups_list(tls, groups))
        die("no TLS context");
    SSL_CTX_set_session_cache_mode(tls, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_options(tls, SSL_OP_NO_TICKET);
    SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(tls, 1);
    SSL_CTX_set_default_read_buffer_len(tls, 1 << 16);
    if (!SSL_CTX_set_ciphersuites(tls, suites)) die("no such cipher suite");
    if (!SSL_CTX_use_certificate_chain_file(tls, certificate)) die("the client's certificate cannot be read");
    if (!SSL_CTX_use_PrivateKey_file(tls, key, SSL_FILETYPE_PEM)) die("the client's key cannot be read");
    if (!SSL_CTX_load_verify_file(tls, root)) die("the root cannot be read");
    SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, NULL);
    unsigned char offer[32] = {(unsigned char)strlen(alpn)};
    memcpy(offer + 1, alpn, strlen(alpn));
    if (*alpn && SSL_CTX_set_alpn_protos(tls, offer, (unsigned)strlen(alpn) + 1)) die("no ALPN");
    return tls;
}

static void watch(wires *w, connection *c, bool writing) {
    struct epoll_event event = {.events = EPOLLIN | (writing ? EPOLLOUT : 0), .data.ptr = c};
    if (c->wants_write == writing) return;
    c->wants_write = writing;
    epoll_ctl(w->epoll, EPOLL_CTL_MOD, c->fd, &event);
}

void wire_open(wires *w, connection *c) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(w->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("no socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) die("cannot connect");
    c->state = CONNECTING;
    c->wants_write = true;
    epoll_ctl(w->epoll, EPOLL_CTL_ADD, c->fd, &event);
}

void wire_close(wires *w, connection *c, bool politely) {
    (void)w;
    if (c->ssl) {
        if (politely) SSL_shutdown(c->ssl);
        SSL_free(c->ssl);
        ERR_clear_error();
    }
    close(c->fd); /* epoll forgets it */
    c->ssl = NULL;
    c->state = CLOSED;
}

/* Whether to go on later: what OpenSSL waits for is watched. */
static bool later(wires *w, connection *c, int result) {
    int why = SSL_get_error(c->ssl, result);
    if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE) return false;
    watch(w, c, why == SSL_ERROR_WANT_WRITE);
    return true;
}

bool wire_advance(wires *w, connection *c) {
    if (c->state == CONNECTING) {
        int error = 0;
        socklen_t length = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
        if (error) return false;
        if (!w->tls) {
            c->state = IDLE;
            watch(w, c, false);
            return true;
        }
        c->ssl = SSL_new(w->tls);
        SSL_set_fd(c->ssl, c->fd);
        SSL_set_tlsext_host_name(c->ssl, w->name);
        SSL_set_connect_state(c->ssl);
        c->state = HANDSHAKING;
    }
    if (c->state == HANDSHAKING) {
        int result = SSL_do_handshake(c->ssl);
        if (result != 1) return later(w, c, result);
        if (SSL_session_reused(c->ssl)) die("a session was resumed");
        c->state = IDLE;
        watch(w, c, false);
        return true;
    }
    return c->state != BUSY || c->out_sent == c->out_length || wire_write(w, c);
}

bool wire_write(wires *w, connection *c) {
    while (c->out_sent < c->out_length) {
        size_t left = c->out_length - c->out_sent;
        if (c->ssl) {
            int result = SSL_write(c->ssl, c->out + c->out_sent, (int)left);
            if (result <= 0) return later(w, c, result);
            c->out_sent += (size_t)result;
        } else {
            ssize_t result = send(c->fd, c->out + c->out_sent, left, MSG_NOSIGNAL);
            if (result < 0 && errno != EAGAIN) return false;
            if (result < 0) {
                watch(w, c, true);
                return true;
            }
            c->out_sent += (size_t)result;
        }
    }
    watch(w, c, false);
    return true;
}

long wire_read(connection *c, char *buffer, size_t size) {
    if (!c->ssl) {
        ssize_t result = recv(c->fd, buffer, size, 0);
        if (result > 0) return result;
        return result < 0 && errno == EAGAIN ? 0 : -1;
    }
    int result = SSL_read(c->ssl, buffer, (int)size);
    if (result > 0) return result;
    return SSL_get_error(c->ssl, result) == SSL_ERROR_WANT_READ ? 0 : -1;
}
