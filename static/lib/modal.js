// A modal dialog and its style. Loaded with the first dialog.
import { addStyle, el } from "./dom.js";

addStyle(`
  .dialog {
    inline-size: min(30rem, 100vw - 32px); max-block-size: calc(100dvh - 32px); padding: 0;
    border: 1px solid var(--line); border-radius: 18px; background: var(--surface); color: var(--text);
    box-shadow: 0 24px 80px -20px rgb(0 0 0 / .45);
  }
  .dialog::backdrop { background: rgb(12 12 14 / .5); backdrop-filter: blur(3px); }
  .dialog[open] { animation: rise .22s cubic-bezier(.2, .7, .2, 1); }
  .dialog form, .dialog > div { display: grid; gap: 18px; padding: 26px 26px 22px; }
  .dialog h2 { font: 600 1.3125rem/1.25 var(--display); letter-spacing: -.02em; }
  .dialog p { color: var(--muted); text-wrap: pretty; }
  .dialog-actions {
    display: flex; flex-wrap: wrap; justify-content: flex-end; gap: 8px; margin-block-start: 4px;
  }
  @media (max-width: 480px) {
    .dialog-actions .button { flex: 1 1 100%; }
    .dialog-actions .button:last-child { order: -1; }
  }
`);

/** Opens a dialog, labelled by the element with the id `label`; closing removes it. */
export function openModal(label, ...content) {
  const dialog = el("dialog", { class: "dialog", "aria-labelledby": label }, ...content);
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}
