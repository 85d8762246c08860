// The interface, to read: openapi.json and asyncapi.json, which the service makes from its own models, laid out.

import { byId, el } from "../lib/dom.js";

const METHODS = ["get", "put", "post", "patch", "delete"];

/** Text with `code` and [links](/path) in it. */
function prose(text) {
  return text.split(/(`[^`]+`|\[[^\]]+\]\([^)]+\))/).map((part) => {
    if (part.startsWith("`")) return el("code", {}, part.slice(1, -1));
    const link = /^\[([^\]]+)\]\((\/[^)]*)\)$/.exec(part);
    return link ? el("a", { href: link[2] }, link[1]) : part;
  });
}

const paragraphs = (text) => (text ?? "").split("\n\n").filter(Boolean).map((part) => el("p", {}, prose(part)));

// What a value is

const nameOf = (schema) => schema.$ref?.split("/").at(-1);
const schemaId = (name) => `schema-${name}`;

function kind(schema) {
  const name = nameOf(schema);
  if (name) return [el("a", { href: `#${schemaId(name)}` }, name)];
  if (schema.allOf) return kind(schema.allOf[0]);
  if (schema.anyOf) return schema.anyOf.flatMap((each, index) => [index ? " or " : "", ...kind(each)]);
  if (schema.const !== undefined) return [el("code", {}, JSON.stringify(schema.const))];
  if (schema.enum) return schema.enum.flatMap((each, index) => [index ? " · " : "", el("code", {}, each)]);
  if (schema.type === "array") return ["list of ", ...kind(schema.items)];
  return [schema.format === "date-time" ? "time" : (schema.type ?? "anything")];
}

function bounds(schema) {
  const own = schema.anyOf?.find((each) => each.type !== "null") ?? schema;
  const said = [];
  if (own.minLength || own.maxLength) said.push(`${own.minLength ?? 0} to ${own.maxLength ?? "any number of"} characters`);
  if (own.maxItems) said.push(`at most ${own.maxItems}`);
  if (own.minimum !== undefined && own.maximum !== undefined) said.push(`${own.minimum} to ${own.maximum}`);
  else if (own.minimum !== undefined) said.push(`at least ${own.minimum}`);
  if (own.pattern?.includes("A-Za-z")) said.push(own.pattern);
  if (schema.default !== undefined && schema.default !== null) said.push(`by default ${schema.default}`);
  return said.join("; ");
}

function row(name, schema, { required, description }) {
  const optional = required ? null : el("span", { class: "muted" }, " optional");
  const text = [description ?? schema.description, bounds(schema)].filter(Boolean).join(" ");
  return el("tr", {}, el("td", {}, el("code", {}, name), optional), el("td", {}, kind(schema)), el("td", {}, prose(text)));
}

function fields(schema) {
  if (schema.enum) return el("p", {}, kind(schema));
  const required = new Set(schema.required ?? []);
  const rows = Object.entries(schema.properties ?? {}).map(([name, field]) => row(name, field, { required: required.has(name) }));
  return rows.length ? el("table", {}, el("tbody", {}, rows)) : el("p", { class: "muted" }, "No fields.");
}

const block = (title, ...content) => el("div", { class: "block" }, el("h3", {}, title), ...content);

// What there is

function entry(id, head, body) {
  return el("details", { id }, el("summary", {}, head), el("div", { class: "entry" }, body));
}

function operation(path, method, described, openapi) {
  const parameters = described.parameters.map((each) => (each.$ref ? openapi.components.parameters[nameOf(each)] : each));
  const asked = parameters.map((each) => row(each.name, each.schema, each));
  const { schema: body, example } = described.requestBody?.content["application/json"] ?? {};
  const answers = Object.entries(described.responses).map(([status, described]) => {
    const answer = described.$ref ? openapi.components.responses[nameOf(described)] : described;
    const shapes = Object.entries(answer.content ?? {}).flatMap(([media, { schema }], index) => {
      const plain = media.startsWith("application/") ? kind(schema) : [media];
      return [index ? ", " : "", ...plain];
    });
    return el("tr", {}, el("td", {}, el("code", {}, status)), el("td", {}, shapes), el("td", {}, prose(answer.description)));
  });
  return entry(
    described.operationId,
    [
      el("span", { class: `method ${method}` }, method.toUpperCase()),
      el("code", {}, path),
      el("span", { class: "muted" }, described.summary),
    ],
    [
      paragraphs(described.description),
      block("Parameters", el("table", {}, el("tbody", {}, asked))),
      body ? block("Body", el("p", {}, kind(body)), example ? el("pre", {}, JSON.stringify(example, null, 2)) : null) : null,
      block("Answers", el("table", {}, el("tbody", {}, answers))),
    ],
  );
}

function message(described, asyncapi) {
  const schema = asyncapi.components.schemas[nameOf(described.payload) ?? nameOf(described.payload.allOf[0])];
  return entry(
    `frame-${described.name}`,
    [el("code", {}, described.name), el("span", { class: "muted" }, prose(described.summary))],
    [paragraphs(described.description), fields({ ...schema, properties: { ...schema.properties, ...described.payload.properties } })],
  );
}

function section(id, title, ...content) {
  byId("contents").append(el("a", { href: `#${id}` }, title));
  byId("sections").append(el("section", { id }, el("h2", {}, title), ...content));
}

function authentication(openapi) {
  return [
    paragraphs(openapi.components.securitySchemes.bearer.description),
    el("pre", {}, "Authorization: Bearer TOKEN"),
    paragraphs(
      "Over the live socket the same header, or an `auth` frame at any time. A token reaches a page in the fragment of its address (`#token=…`).\n\n" +
        "How a token is made, the element for a host page and the options of the overlay: [Integrate](/docs/guides/integrate), [Embed](/docs/guides/embed).",
    ),
  ];
}

const entries = (...content) => el("div", { class: "card entries" }, ...content);

function show(openapi, asyncapi) {
  byId("intro").append(...prose(openapi.info.description));
  section("authentication", "Authentication", ...authentication(openapi));
  for (const { name } of openapi.tags) {
    const operations = Object.entries(openapi.paths).flatMap(([path, methods]) =>
      METHODS.filter((method) => methods[method]?.tags.includes(name)).map((method) => operation(path, method, methods[method], openapi)),
    );
    section(name.toLowerCase().replaceAll(" ", "-"), name, entries(operations));
  }
  const { live } = asyncapi.channels;
  const framesOf = (action) =>
    Object.values(asyncapi.operations)
      .filter((each) => each.action === action)
      .flatMap((each) => each.messages)
      .map((each) => message(asyncapi.components.messages[nameOf(each)], asyncapi));
  const codes = Object.entries(live["x-close-codes"]).map(([code, meaning]) =>
    el("tr", {}, el("td", {}, el("code", {}, code)), el("td", {}, prose(meaning)), el("td", {})),
  );
  section(
    "live",
    "Live socket",
    el("p", { class: "intro" }, el("code", {}, live.address), " ", prose(asyncapi.info.description)),
    block("The service sends", entries(framesOf("send"))),
    block("A client sends", entries(framesOf("receive"))),
    block("Closing codes", el("table", {}, el("tbody", {}, codes))),
  );
  const schemas = { ...asyncapi.components.schemas, ...openapi.components.schemas };
  const sorted = Object.entries(schemas).sort(([one], [other]) => (one < other ? -1 : 1));
  section(
    "shapes",
    "Shapes",
    entries(
      sorted.map(([name, schema]) =>
        entry(schemaId(name), [el("code", {}, name), el("span", { class: "muted" }, prose(schema.description ?? ""))], [fields(schema)]),
      ),
    ),
  );
  reveal();
}

/** Hide every entry that does not hold all of the words, and every section that is left without one. */
function search(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  let found = 0;
  for (const part of document.querySelectorAll("#sections > section")) {
    for (const one of part.querySelectorAll("details")) {
      one.hidden = !words.every((word) => one.textContent.toLowerCase().includes(word));
    }
    const shown = (within) => within.querySelectorAll("details:not([hidden])").length;
    for (const one of [part, ...part.querySelectorAll(":scope > .block")]) one.hidden = words.length > 0 && shown(one) === 0;
    found += shown(part);
  }
  byId("found").textContent = words.length ? `${found} found` : "";
}

/** Open what the address names, so that a link into the page shows something. */
function reveal() {
  const target = location.hash && byId(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  // A link out of a filtered list may lead to an entry that the search has hidden.
  if (target.closest("[hidden]")) {
    byId("search").value = "";
    search("");
  }
  if (target.tagName === "DETAILS") target.open = true;
  target.scrollIntoView();
}

async function load(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path} answered ${response.status}`);
  return response.json();
}

try {
  show(...(await Promise.all([load("/openapi.json"), load("/asyncapi.json")])));
  window.addEventListener("hashchange", reveal);
  byId("search").addEventListener("input", (event) => search(event.target.value));
  search(byId("search").value);
} catch (error) {
  byId("trouble").hidden = false;
  byId("trouble").textContent = `The description could not be loaded: ${error.message}`;
}
