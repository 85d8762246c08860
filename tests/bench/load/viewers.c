/* Many WebSocket viewers in one process: connects them, reads all they are sent, checks that it joins up, counts.
 *
 * Commands come as lines on standard input, answers leave as lines on standard output (`viewers.py` beside this file
 * speaks the same):
 *
 *   connect HOST PORT COUNT PER_ROOM WINDOW RCVBUF PATH   open COUNT sockets, at most WINDOW of them at a time unfinished
 *       -> connected OPEN FAILED SECONDS                  ("%d" in PATH becomes the number of the room)
 *   wait TOTAL MILLISECONDS     until that many deliveries have come to all sockets together
 *       -> reached|late DELIVERIES NANOSECONDS            (CLOCK_MONOTONIC of the last delivery)
 *   report -> {json}            reset -> ok (counters)    pause, resume -> ok (reading)    close -> ok
 *
 * A delivery is one event at one socket: a frame {"type":"update","from":4,"version":7,...} is three. A frame whose
 * `from` is not the version the socket has is a gap, one that is not newer is a repeat. A snapshot sets the version.
 * A compressed frame is not looked into: the first one is the snapshot, each one after it is one delivery.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HEAD 1024          /* what is kept of an unfinished frame or handshake */
#define LOOKED_AT 160      /* how much of a frame's payload tells what it is */
#define BUFFER (1 << 20)
#define A_SOURCE 20000     /* sockets per loopback source address */
#define AT_ONCE 128        /* events taken from the kernel together */

enum state { GONE, CONNECTING, UPGRADING, JOINING, READY };
enum kind { OTHER, UPDATE, SNAPSHOT, CONTROL };
enum flavour { PLAIN, LIVE, SOCKETIO, CENTRIFUGE, DEFLATED };
                           /* ready after the upgrade, a snapshot, Socket.IO's hello, the answer to our connect, a snapshot */

struct viewer {
    int fd;
    enum state state;
    enum kind kind;                 /* of the frame that is being read */
    uint64_t left;                  /* bytes of its payload still to come */
    int64_t from, to;               /* its versions */
    int64_t version;                /* the socket's */
    uint64_t deliveries;
    size_t held;
    int room;
    unsigned char head[HEAD];
};

static enum flavour flavour;
static struct viewer *viewers;
static int count, next, open_now, unfinished, failed, window_size, per_room, receive_buffer;
static char host[64], path[512];
static int port;
static int poller;
static unsigned char buffer[BUFFER];

static uint64_t deliveries, frames, bytes, gaps, repeats, snapshots, closed;
static int64_t last_ns, connect_began;
static uint64_t wanted;
static int64_t deadline;            /* 0: nobody waits */
static int connecting;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void watch(struct viewer *v, uint32_t events, int operation) {
    struct epoll_event e = {.events = events, .data.ptr = v};
    epoll_ctl(poller, operation, v->fd, &e);
}

static void leave(struct viewer *v) {
    if (v->state == GONE) return;
    if (v->state == READY) { open_now--; closed++; } else { unfinished--; failed++; }
    v->state = GONE;
    close(v->fd);
}

static void ready(struct viewer *v) { v->state = READY; unfinished--; open_now++; }

/* A masked frame with the key 0, which leaves the payload as it is. */
static void tell(struct viewer *v, int opcode, const void *payload, size_t size) {
    unsigned char frame[6 + 125] = {0x80 | opcode, 0x80 | size};
    memcpy(frame + 6, payload, size);
    if (send(v->fd, frame, 6 + size, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN) leave(v);
}

static int64_t number_after(const unsigned char *p, size_t n, const char *name) {
    unsigned char *at = memmem(p, n, name, strlen(name));
    if (!at) return -1;
    int64_t value = 0;
    for (at += strlen(name); at < p + n && *at >= '0' && *at <= '9'; at++) value = value * 10 + (*at - '0');
    return value;
}

/* What a frame is, from the beginning of its payload. */
static void look(struct viewer *v, int opcode, int compressed, const unsigned char *p, size_t n) {
    v->kind = opcode < 8 ? OTHER : CONTROL;
    if (compressed) {
        v->kind = v->state == JOINING ? SNAPSHOT : UPDATE;
        v->from = v->version;
        v->to = v->version + 1;
        return;
    }
    if (opcode == 8) { leave(v); return; }
    if (opcode == 9) { tell(v, 10, p, n > 125 ? 125 : n); return; }
    if (opcode == 10) return;
    if (n > LOOKED_AT) n = LOOKED_AT;
    if (flavour == SOCKETIO && n >= 1) {
        if (p[0] == '0') { tell(v, 1, "40", 2); return; }
        if (p[0] == '2') { tell(v, 1, "3", 1); return; }
        if (n >= 2 && p[0] == '4' && p[1] == '0') { if (v->state == JOINING) ready(v); return; }
    }
    if (flavour == CENTRIFUGE && v->state == JOINING) {
        if (memmem(p, n, "\"id\":1", 6)) ready(v);
        return;
    }
    v->to = number_after(p, n, "\"version\":");
    if ((v->from = number_after(p, n, "\"from\":")) >= 0) v->kind = UPDATE;
    else if (memmem(p, n, "\"snapshot\"", 10)) v->kind = SNAPSHOT;
}

/* Centrifuge puts messages that are due together into one frame: a newline with something behind it begins another. */
static void look_for_more(struct viewer *v, const unsigned char *p, size_t n) {
    if (flavour != CENTRIFUGE || v->kind != UPDATE) return;
    if (n == v->left) n--;
    for (const unsigned char *end = p + n; p < end && (p = memchr(p, '\n', end - p)); p++) v->to++;
}

static void finish(struct viewer *v) {
    if (v->kind == CONTROL) return;
    frames++;
    if (v->kind == SNAPSHOT) {
        snapshots++;
        v->version = v->to;
        if (v->state == JOINING) ready(v);
    } else if (v->kind == UPDATE) {
        if (v->to <= v->version) { repeats++; return; }
        if (v->from != v->version) gaps++;
        deliveries += v->to - v->from;
        v->deliveries += v->to - v->from;
        v->version = v->to;
    }
}

/* Take one frame's beginning; returns the bytes used, 0 if there are too few. */
static size_t begin(struct viewer *v, const unsigned char *p, size_t n) {
    if (n < 2) return 0;
    size_t header = 2;
    uint64_t size = p[1] & 127;
    if (size == 126) {
        if (n < 4) return 0;
        size = (uint64_t)p[2] << 8 | p[3];
        header = 4;
    } else if (size == 127) {
        if (n < 10) return 0;
        size = 0;
        for (int i = 2; i < 10; i++) size = size << 8 | p[i];
        header = 10;
    }
    size_t here = n - header;
    if (here < size && here < LOOKED_AT) return 0;
    if (here > size) here = size;
    v->left = size;
    look(v, p[0] & 15, p[0] & 64, p + header, here);
    look_for_more(v, p + header, here);
    v->left -= here;
    if (v->state != GONE && !v->left) finish(v);
    return header + here;
}

static void feed(struct viewer *v, const unsigned char *p, size_t n) {
    while (n && v->state != GONE) {
        if (v->left) {
            size_t k = n < v->left ? n : v->left;
            look_for_more(v, p, k);
            p += k; n -= k; v->left -= k;
            if (!v->left) finish(v);
            continue;
        }
        if (v->held) {                       /* the beginning came earlier: put it together */
            size_t k = HEAD - v->held < n ? HEAD - v->held : n, had = v->held;
            memcpy(v->head + had, p, k);
            v->held = 0;
            size_t used = begin(v, v->head, had + k);
            if (!used) { v->held = had + k; p += k; n -= k; continue; }
            p += used - had; n -= used - had;
            continue;
        }
        size_t used = begin(v, p, n);
        if (!used) { memcpy(v->head, p, n); v->held = n; return; }
        p += used; n -= used;
    }
}

static void upgrade(struct viewer *v, const unsigned char *p, size_t n) {
    size_t k = HEAD - v->held < n ? HEAD - v->held : n;
    memcpy(v->head + v->held, p, k);
    v->held += k;
    unsigned char *end = memmem(v->head, v->held, "\r\n\r\n", 4);
    if (!end) { if (v->held == HEAD) leave(v); return; }
    if (memcmp(v->head, "HTTP/1.1 101", 12)) { leave(v); return; }
    size_t over = v->held - (end + 4 - v->head);
    unsigned char rest[HEAD];
    memcpy(rest, end + 4, over);
    v->held = 0;
    v->state = JOINING;
    if (flavour == PLAIN) ready(v);
    if (flavour == CENTRIFUGE) tell(v, 1, "{\"id\":1}", 8);
    feed(v, rest, over);
    if (v->state != GONE) feed(v, p + k, n - k);
}

static void request(struct viewer *v) {
    char target[600], text[1200];
    snprintf(target, sizeof target, path, v->room);
    int size = snprintf(text, sizeof text,
        "GET %s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n", target, host, port,
        flavour == DEFLATED ? "Sec-WebSocket-Extensions: permessage-deflate\r\n" : "");
    v->state = UPGRADING;
    if (send(v->fd, text, size, MSG_NOSIGNAL) != size) { leave(v); return; }
    watch(v, EPOLLIN, EPOLL_CTL_MOD);
}

static void dial(int number) {
    struct viewer *v = &viewers[number];
    v->room = number / per_room;
    v->state = CONNECTING;
    unfinished++;
    v->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (v->fd < 0) { v->state = GONE; unfinished--; failed++; return; }
    int one = 1;
    struct linger gone_at_once = {1, 0};     /* leaves no TIME_WAIT behind */
    setsockopt(v->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(v->fd, SOL_SOCKET, SO_LINGER, &gone_at_once, sizeof gone_at_once);
    if (receive_buffer) setsockopt(v->fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET, .sin_port = htons(port)};
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + number / A_SOURCE);
    setsockopt(v->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    bind(v->fd, (struct sockaddr *)&from, sizeof from);
    inet_pton(AF_INET, host, &to.sin_addr);
    watch(v, EPOLLOUT, EPOLL_CTL_ADD);
    if (connect(v->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS) leave(v);
}

static void serve(struct viewer *v, uint32_t events) {
    if (v->state == GONE) return;
    if (v->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(v->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) leave(v); else if (events & EPOLLOUT) request(v);
        return;
    }
    ssize_t n = recv(v->fd, buffer, BUFFER, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) { leave(v); return; }
    bytes += n;
    if (v->state == UPGRADING) upgrade(v, buffer, n); else feed(v, buffer, n);
}

static void set_reading(int on) {
    for (int i = 0; i < count; i++)
        if (viewers[i].state == READY) watch(&viewers[i], on ? EPOLLIN : 0, EPOLL_CTL_MOD);
}

static void hang_up(void) {
    for (int i = 0; i < count; i++) if (viewers[i].state != GONE) close(viewers[i].fd);
    free(viewers);
    viewers = NULL;
    count = next = open_now = unfinished = failed = 0;
}

static void report(void) {
    uint64_t least = UINT64_MAX, most = 0;
    int64_t oldest = INT64_MAX, newest = -1;
    for (int i = 0; i < count; i++) {
        struct viewer *v = &viewers[i];
        if (v->state != READY) continue;
        if (v->deliveries < least) least = v->deliveries;
        if (v->deliveries > most) most = v->deliveries;
        if (v->version < oldest) oldest = v->version;
        if (v->version > newest) newest = v->version;
    }
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    printf("{\"open\":%d,\"deliveries\":%lu,\"frames\":%lu,\"bytes\":%lu,\"gaps\":%lu,\"repeats\":%lu,\"snapshots\":%lu,"
           "\"closed\":%lu,\"least\":%lu,\"most\":%lu,\"oldest\":%ld,\"newest\":%ld,\"cpu\":%.6f}\n",
           open_now, deliveries, frames, bytes, gaps, repeats, snapshots, closed, open_now ? least : 0, most,
           open_now ? oldest : -1, newest, cpu);
}

static void obey(char *line) {
    int size = 0;
    if (sscanf(line, "connect %63s %d %d %d %d %d %511s", host, &port, &count, &per_room, &window_size, &receive_buffer,
               path) == 7) {
        viewers = calloc(count, sizeof *viewers);
        connecting = 1;
        connect_began = now_ns();
    } else if (sscanf(line, "wait %lu %d", &wanted, &size) == 2) {
        deadline = now_ns() + (int64_t)size * 1000000;
    } else if (!strcmp(line, "report")) {
        report();
    } else {
        if (!strcmp(line, "pause")) set_reading(0);
        else if (!strcmp(line, "resume")) set_reading(1);
        else if (!strcmp(line, "close")) hang_up();
        else if (!strcmp(line, "reset")) {
            deliveries = frames = bytes = gaps = repeats = snapshots = closed = 0;
            for (int i = 0; i < count; i++) viewers[i].deliveries = 0;
        } else { printf("what?\n"); return; }
        printf("ok\n");
    }
}

/* Commands as they come; 0 when there will be no more. */
static int listen_to(void) {
    static char text[2048];
    static size_t held;
    ssize_t n = read(0, text + held, sizeof text - 1 - held);
    if (n <= 0) return 0;
    held += n;
    char *end;
    while ((end = memchr(text, '\n', held))) {
        *end = 0;
        obey(text);
        held -= end + 1 - text;
        memmove(text, end + 1, held);
    }
    return 1;
}

static void settle(void) {
    if (connecting) {
        while (next < count && unfinished < window_size) dial(next++);
        if (next == count && !unfinished) {
            connecting = 0;
            printf("connected %d %d %.6f\n", open_now, failed, (now_ns() - connect_began) / 1e9);
        }
    }
    if (deadline && (deliveries >= wanted || now_ns() > deadline)) {
        printf("%s %lu %ld\n", deliveries >= wanted ? "reached" : "late", deliveries, last_ns);
        deadline = 0;
    }
}

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "plain";
    flavour = !strcmp(name, "live") ? LIVE : !strcmp(name, "socketio") ? SOCKETIO
            : !strcmp(name, "centrifuge") ? CENTRIFUGE : !strcmp(name, "deflated") ? DEFLATED : PLAIN;
    setvbuf(stdout, NULL, _IOLBF, 0);
    poller = epoll_create1(0);
    struct epoll_event command = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poller, EPOLL_CTL_ADD, 0, &command);
    static struct epoll_event events[AT_ONCE];
    for (;;) {
        settle();
        int n = epoll_wait(poller, events, AT_ONCE, deadline ? 5 : -1), commanded = 0;
        uint64_t before = deliveries;
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr) serve(events[i].data.ptr, events[i].events);
            else commanded = 1;
        }
        if (deliveries != before) last_ns = now_ns();
        if (commanded && !listen_to()) return 0;
    }
}
