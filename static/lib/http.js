// HTTP requests to the service with a token, from its own pages or a host site's.
import { QueueError, newId } from "./protocol.js";

const RETRY_AFTER_MS = [400, 1_200];

/**
 * Resolves with the answer's JSON. Rejects with a QueueError: the service's refusal, or DISCONNECTED. `server`: an
 * origin or "". `accepts(response)`: whether an error answer is accepted as well.
 */
export async function request(server, token, method, path, { body, headers = {}, accepts = () => false } = {}) {
  const sent = { ...headers };
  if (token) sent.Authorization = `Bearer ${token}`;
  if (body !== undefined) sent["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(server + path, { method, headers: sent, body: body && JSON.stringify(body), cache: "no-store" });
  } catch {
    throw new QueueError("DISCONNECTED");
  }
  const json = await response.json().catch(() => null);
  if (!response.ok && !(json && accepts(response))) {
    throw new QueueError(json?.code ?? "INTERNAL", json ?? { status: response.status });
  }
  return json;
}

/** Posts a command. If the answer is lost, it is sent again with the same idempotency key. */
export async function post(server, token, path, body = {}) {
  const headers = { "Idempotency-Key": newId() };
  for (const pause of [...RETRY_AFTER_MS, null]) {
    try {
      return await request(server, token, "POST", path, { body, headers });
    } catch (error) {
      if (error.code !== "DISCONNECTED" || pause === null) throw error;
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }
}
