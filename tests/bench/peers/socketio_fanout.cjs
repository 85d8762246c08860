// Peer: Socket.IO; `publish` goes out as `update` to everyone else. Run as `socketio_fanout.cjs PORT`.
const { createServer } = require("http");
const { Server } = require("socket.io");

const web = createServer();
const server = new Server(web, { transports: ["websocket"], perMessageDeflate: false, serveClient: false });
server.on("connection", (socket) => {
  socket.on("publish", (data) => socket.broadcast.emit("update", data));
});
web.listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 4096 });
