// Peer: Fastify, its own schema validation, and BullMQ's queue in Redis. Run as `fastify_bullmq.cjs PORT REDIS_PORT`.
const fastify = require("fastify");
const { Queue } = require("bullmq");

const text = (longest) => ({ type: "string", minLength: 1, maxLength: longest });
const body = {
  type: "object",
  additionalProperties: false,
  required: ["idempotencyKey", "sourceFeature", "sourceEventId", "performerId", "userId", "escrowTransactionId",
    "tokens", "title", "description"],
  properties: {
    idempotencyKey: text(255), sourceFeature: text(64), sourceEventId: text(128), performerId: text(64), userId: text(64),
    escrowTransactionId: text(128), tokens: { type: "integer", minimum: 1 }, title: text(200), description: text(2000),
    durationSeconds: { type: ["integer", "null"], minimum: 1 }, metadata: { type: "object" },
  },
};

const queue = new Queue("items", { connection: { host: "127.0.0.1", port: Number(process.argv[3]) } });
const app = fastify();
app.post("/v1/queue/items", { schema: { body } }, async (request, reply) => {
  const job = await queue.add("item", request.body, { jobId: request.body.idempotencyKey });
  reply.code(201);
  return { itemId: job.id, ...request.body, status: "created" };
});
app.listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 4096 });
