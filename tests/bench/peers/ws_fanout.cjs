// Peer: ws, with one serialised message for all clients. Run as `ws_fanout.cjs PORT`.
const { WebSocketServer, WebSocket } = require("ws");

const viewers = new Set();
const server = new WebSocketServer({
  port: Number(process.argv[2]), host: "127.0.0.1", perMessageDeflate: false, backlog: 4096,
});
server.on("connection", (socket, request) => {
  if (request.url === "/publish") {
    socket.on("message", (data) => {
      for (const viewer of viewers) {
        if (viewer.readyState === WebSocket.OPEN) viewer.send(data, { binary: false });
      }
    });
    return;
  }
  viewers.add(socket);
  socket.on("close", () => viewers.delete(socket));
  socket.on("error", () => viewers.delete(socket));
});
