// A menu of actions at a button, with arrow keys, Home, End and Escape. Closing returns the focus to the button.
import { addStyle, el } from "../lib/dom.js";

addStyle(`
  .menu {
    position: absolute; z-index: 20; min-inline-size: 190px; padding: 6px; border-radius: 12px;
    background: var(--surface); border: 1px solid var(--line); box-shadow: 0 16px 44px -12px rgb(0 0 0 / .35);
    animation: rise .14s ease-out;
  }
  .menu button {
    display: block; inline-size: 100%; padding: 9px 12px; border: 0; border-radius: 8px; background: none;
    text-align: start; font-size: .9375rem; cursor: pointer;
  }
  .menu button:is(:hover, :focus-visible) {
    background: color-mix(in oklab, var(--muted) 13%, transparent); outline-offset: -2px;
  }
  .menu .danger { color: var(--bad); }
`);

let open = null;

/** Opens the menu of a button, or closes it. `choices`: [{label, act, danger}]. */
export function toggleMenu(button, choices) {
  const again = open?.button === button;
  close();
  if (!again) show(button, choices);
}

function show(button, choices) {
  const menu = el(
    "div",
    { class: "menu", role: "menu", "aria-label": button.getAttribute("aria-label") },
    choices.map(({ label, act, danger }) =>
      el(
        "button",
        {
          class: danger ? "danger" : null,
          type: "button",
          role: "menuitem",
          tabindex: "-1",
          onclick: () => {
            close();
            act();
          },
        },
        label,
      ),
    ),
  );
  document.querySelector("main").append(menu);
  open = { button, menu };
  button.setAttribute("aria-expanded", "true");
  const anchor = button.getBoundingClientRect();
  const fits = anchor.bottom + menu.offsetHeight + 12 < innerHeight;
  menu.style.setProperty("top", `${scrollY + (fits ? anchor.bottom + 4 : anchor.top - menu.offsetHeight - 4)}px`);
  menu.style.setProperty("left", `${Math.max(8, anchor.right - menu.offsetWidth)}px`);
  menu.addEventListener("keydown", steer);
  menu.firstChild?.focus();
}

function close(restore = true) {
  if (!open) return;
  const { button, menu } = open;
  open = null;
  const within = menu.contains(document.activeElement);
  menu.remove();
  button.setAttribute("aria-expanded", "false");
  if (restore && within && button.isConnected) button.focus();
}

function steer(event) {
  const items = [...event.currentTarget.children];
  const at = items.indexOf(document.activeElement);
  const target = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
  if (target !== undefined) items.at(target % items.length).focus();
  else if (event.key === "Escape") close();
  else if (event.key === "Tab") close();
  else return;
  if (event.key !== "Tab") event.preventDefault();
  event.stopPropagation();
}

document.addEventListener("pointerdown", (event) => {
  if (open && !open.menu.contains(event.target) && !open.button.contains(event.target)) close(false);
});
addEventListener("resize", () => close(false));
