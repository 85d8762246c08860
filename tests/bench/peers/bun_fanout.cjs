// Peer: Bun's own WebSocket server with its publish and subscribe. Run by Bun as `bun_fanout.cjs PORT`.
const server = Bun.serve({
  port: Number(process.argv[2]),
  hostname: "127.0.0.1",
  fetch(request, self) {
    const publisher = new URL(request.url).pathname === "/publish";
    return self.upgrade(request, { data: { publisher } }) ? undefined : new Response("a WebSocket only", { status: 426 });
  },
  websocket: {
    perMessageDeflate: false,
    backpressureLimit: 16 * 1024 * 1024,
    open(socket) { if (!socket.data.publisher) socket.subscribe("live"); },
    message(socket, message) { if (socket.data.publisher) server.publish("live", message); },
  },
});
