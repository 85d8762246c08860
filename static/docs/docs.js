// The reference page: openapi.json and asyncapi.json as readable entries.

import { byId, el } from "../lib/dom.js";
import { t, translate } from "../lib/messages.js";
import { ELEMENT, examples, overlayOptions, tryouts } from "./tryout.js";

const METHODS = ["get", "put", "post", "patch", "delete"];
const RETURNS_BELOW = 4500;

translate(document);
document.title = `${t("docs.title")} · Performance Queue`;

/** Text with `code` and [links](/path) in it. */
function prose(text) {
  return text.split(/(`[^`]+`|\[[^\]]+\]\([^)]+\))/).map((part) => {
    if (part.startsWith("`")) return el("code", {}, part.slice(1, -1));
    const link = /^\[([^\]]+)\]\((\/[^)]*)\)$/.exec(part);
    return link ? el("a", { href: link[2] }, link[1]) : part;
  });
}

const paragraphs = (text) => (text ?? "").split("\n\n").filter(Boolean).map((part) => el("p", {}, prose(part)));

// Types of values

const nameOf = (schema) => schema.$ref?.split("/").at(-1);
const schemaId = (name) => `schema-${name}`;

function kind(schema) {
  const name = nameOf(schema);
  if (name) return [el("a", { href: `#${schemaId(name)}` }, name)];
  if (schema.allOf) return kind(schema.allOf[0]);
  if (schema.anyOf) return schema.anyOf.flatMap((each, index) => [index ? t("docs.or") : "", ...kind(each)]);
  if (schema.const !== undefined) return [el("code", {}, JSON.stringify(schema.const))];
  if (schema.enum) return schema.enum.flatMap((each, index) => [index ? " · " : "", el("code", {}, each)]);
  if (schema.type === "array") return [t("docs.listOf"), ...kind(schema.items)];
  return [schema.format === "date-time" ? t("docs.time") : (schema.type ?? t("docs.anything"))];
}

function bounds(schema) {
  const own = schema.anyOf?.find((each) => each.type !== "null") ?? schema;
  const said = [];
  if (own.minLength || own.maxLength)
    said.push(t("docs.characters", { least: own.minLength ?? 0, most: own.maxLength ?? t("docs.anyNumber") }));
  if (own.maxItems) said.push(t("docs.atMost", { n: own.maxItems }));
  if (own.minimum !== undefined && own.maximum !== undefined)
    said.push(t("docs.span", { least: own.minimum, most: own.maximum }));
  else if (own.minimum !== undefined) said.push(t("docs.atLeast", { n: own.minimum }));
  if (own.pattern?.includes("A-Za-z")) said.push(own.pattern);
  if (schema.default !== undefined && schema.default !== null) said.push(t("docs.default", { value: String(schema.default) }));
  return said.join("; ");
}

function row(name, schema, { required, description }) {
  const optional = required ? null : el("span", { class: "muted" }, ` ${t("docs.optional")}`);
  const text = [description ?? schema.description, bounds(schema)].filter(Boolean).join(" ");
  return el("tr", {}, el("td", {}, el("code", {}, name), optional), el("td", {}, kind(schema)), el("td", {}, prose(text)));
}

function fields(schema) {
  if (schema.enum) return el("p", {}, kind(schema));
  const required = new Set(schema.required ?? []);
  const rows = Object.entries(schema.properties ?? {}).map(([name, field]) => row(name, field, { required: required.has(name) }));
  return rows.length ? el("table", {}, el("tbody", {}, rows)) : el("p", { class: "muted" }, t("docs.noFields"));
}

const block = (title, ...content) => el("div", { class: "block" }, el("h3", {}, title), ...content);

// Entries

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
      block(t("docs.parameters"), el("table", {}, el("tbody", {}, asked))),
      body ? block(t("docs.body"), el("p", {}, kind(body)), example ? el("pre", {}, JSON.stringify(example, null, 2)) : null) : null,
      block(t("docs.answers"), el("table", {}, el("tbody", {}, answers))),
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

/** A table of [name, meaning, control to try it] rows. */
const tried = (rows) =>
  el(
    "table",
    { class: "tried" },
    el("tbody", {}, rows.map(([name, meaning, trial]) => el("tr", {}, el("td", {}, el("code", {}, name)), el("td", {}, prose(meaning)), el("td", {}, trial)))),
  );

function section(id, title, ...content) {
  byId("contents").append(el("a", { href: `#${id}` }, title));
  byId("sections").append(el("section", { id }, el("h2", {}, title), ...content));
}

function authentication(openapi) {
  return [
    paragraphs(openapi.components.securitySchemes.bearer.description),
    el("pre", {}, "Authorization: Bearer TOKEN"),
    paragraphs(t("docs.tokens")),
  ];
}

/** Whether a client may come back by itself after it was closed with a code. */
const returns = (code) => t(Number(code) < RETURNS_BELOW ? "docs.mayReturn" : "docs.mustNotReturn");

const entries = (...content) => el("div", { class: "card entries" }, ...content);

function show(openapi, asyncapi) {
  byId("intro").append(...prose(openapi.info.description));
  byId("generated").textContent = t("docs.generated");
  section("authentication", t("docs.authentication"), ...authentication(openapi));
  const intake = openapi.paths["/v1/queue/items"].post.requestBody.content["application/json"].example;
  section(
    "examples",
    t("docs.examples"),
    examples(intake).map(([title, id, program]) => block(title, el("pre", { id, class: "card program", tabindex: "0" }, program))),
    paragraphs(t("docs.examplesMore")),
  );
  const [place, overlay, reference] = tryouts();
  section(
    "element",
    t("docs.element"),
    paragraphs(t("docs.elementText")),
    el("pre", { class: "card program", tabindex: "0" }, ELEMENT),
    ...place,
    ...reference.map(([title, rows, before]) => block(prose(title), before, tried(rows))),
  );
  const options = overlayOptions().map(([name, text]) =>
    el("tr", {}, el("td", {}, el("code", {}, name)), el("td", {}, prose(text)), el("td", {})),
  );
  section(
    "overlay-options",
    t("docs.overlay"),
    paragraphs(t("docs.overlayText")),
    el("table", { class: "wide-second" }, el("tbody", {}, options)),
    el("pre", { class: "card program", tabindex: "0" }, `${location.origin}/overlay/mira?max=3&theme=light&hide=time,feature`),
    ...overlay,
  );
  for (const { name } of openapi.tags) {
    const operations = Object.entries(openapi.paths).flatMap(([path, methods]) =>
      METHODS.filter((method) => methods[method]?.tags.includes(name)).map((method) => operation(path, method, methods[method], openapi)),
    );
    section(`about-${name.toLowerCase().replaceAll(" ", "-")}`, name, entries(operations));
  }
  const { live } = asyncapi.channels;
  const framesOf = (action) =>
    Object.values(asyncapi.operations)
      .filter((each) => each.action === action)
      .flatMap((each) => each.messages)
      .map((each) => message(asyncapi.components.messages[nameOf(each)], asyncapi));
  const codes = Object.entries(live["x-close-codes"]).map(([code, meaning]) =>
    el("tr", {}, el("td", {}, el("code", {}, code)), el("td", {}, prose(meaning)), el("td", {}, returns(code))),
  );
  section(
    "live",
    t("docs.live"),
    el("p", { class: "intro" }, el("code", {}, live.address), " ", prose(asyncapi.info.description)),
    block(t("docs.serverFrames"), entries(framesOf("send"))),
    block(t("docs.clientFrames"), entries(framesOf("receive"))),
    block(t("docs.codes"), el("table", { class: "wide-second" }, el("tbody", {}, codes))),
  );
  const schemas = { ...asyncapi.components.schemas, ...openapi.components.schemas };
  const sorted = Object.entries(schemas).sort(([one], [other]) => (one < other ? -1 : 1));
  section(
    "shapes",
    t("docs.shapes"),
    entries(
      sorted.map(([name, schema]) =>
        entry(schemaId(name), [el("code", {}, name), el("span", { class: "muted" }, prose(schema.description ?? ""))], [fields(schema)]),
      ),
    ),
  );
  reveal();
}

let asked = "";

/** Shows the entries and the sections of guides that contain all words of `text`. */
async function search(text) {
  asked = text;
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const here = filter(words);
  const say = (n) => (byId("found").textContent = words.length ? t("docs.found", { n }) : "");
  say(here);
  const links = words.length ? await (await import("./guide-search.js")).findInGuides(words).catch(() => []) : [];
  if (asked !== text) return;
  byId("in-guides").hidden = links.length === 0;
  byId("guide-list").replaceChildren(...links);
  say(here + links.length);
}

/** Hides all entries that lack one of the words, and sections without an entry left. Returns how many entries stay. */
function filter(words) {
  let found = 0;
  for (const part of document.querySelectorAll("#sections > section")) {
    for (const one of part.querySelectorAll("details")) {
      one.hidden = !words.every((word) => one.textContent.toLowerCase().includes(word));
    }
    const shown = (within) => within.querySelectorAll("details:not([hidden])").length;
    const text = part.textContent.toLowerCase();
    const isProse = part.querySelector("details") === null && words.every((word) => text.includes(word));
    for (const one of part.querySelectorAll(":scope > .block")) one.hidden = words.length > 0 && !isProse && shown(one) === 0;
    part.hidden = words.length > 0 && !isProse && shown(part) === 0;
    found += shown(part);
  }
  return found;
}

/** Opens the entry that the address names. */
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
  byId("search").value ||= new URLSearchParams(location.search).get("q") ?? "";
  search(byId("search").value);
} catch (error) {
  byId("trouble").hidden = false;
  byId("trouble").textContent = t("docs.trouble", { detail: error.message });
}
