// Searches the sections of the guides, which are fetched at the first search.
import { el } from "../lib/dom.js";

const AROUND = 70;
let fetched = null;

/** [{title, heading, address, text}] of every section of every guide. */
async function allSections() {
  const pageOf = async (address) => {
    const response = await fetch(address);
    if (!response.ok) throw new Error(`${address} answered ${response.status}`);
    // Only the article: inline styles of the page would violate the content security policy.
    const [article] = /<article[^]*<\/article>/.exec(await response.text());
    return new DOMParser().parseFromString(article, "text/html");
  };
  const list = await pageOf("/docs/guides");
  const addresses = [...list.querySelectorAll(".guide li a")].map((link) => link.getAttribute("href"));
  const guides = await Promise.all(addresses.map(async (address) => sectionsOf(address, await pageOf(address))));
  return guides.flat();
}

function sectionsOf(address, page) {
  const guide = page.querySelector(".guide");
  const title = guide.querySelector("h1").textContent;
  const sections = [];
  for (const node of guide.children) {
    if (["H1", "H2"].includes(node.tagName)) {
      const anchor = node.tagName === "H1" ? "" : `#${node.id}`;
      sections.push({ title, heading: node.textContent, address: address + anchor, text: "" });
    }
    sections.at(-1).text += ` ${node.textContent}`;
  }
  return sections;
}

/** Links to the sections that contain all words, each with the text around the first word. */
export async function findInGuides(words) {
  fetched ??= allSections();
  fetched.catch(() => (fetched = null));
  return (await fetched)
    .filter(({ text }) => words.every((word) => text.toLowerCase().includes(word)))
    .map(({ title, heading, address, text }) =>
      el(
        "li",
        {},
        el("a", { href: address }, title === heading ? title : `${title} · ${heading}`),
        el("p", { class: "muted" }, around(text, words[0])),
      ),
    );
}

function around(text, word) {
  const plain = text.replace(/\s+/g, " ").trim();
  const from = Math.max(0, plain.toLowerCase().indexOf(word) - AROUND);
  return `${from ? "… " : ""}${plain.slice(from, from + 2 * AROUND + word.length)} …`;
}
