// A button that acts only when it is held, so that a slip of the thumb ends no song.
import { browserStorage } from "../lib/storage.js";

const SLOT = "queue.hold";
const HOLD_MS = 600;

export const isHoldWanted = () => browserStorage.getItem(SLOT) === "on";
export const wantHold = (on) => browserStorage.setItem(SLOT, on ? "on" : "off");

/** Makes `button` call `act` when it is pressed or, while `isWanted()`, when it has been held for HOLD_MS. */
export function holdable(button, act, isWanted = isHoldWanted) {
  let timer = null;
  const end = () => {
    clearTimeout(timer);
    timer = null;
    button.removeAttribute("data-holding");
  };
  const begin = () => {
    if (!isWanted() || button.disabled || timer !== null) return;
    button.setAttribute("data-holding", "");
    timer = setTimeout(() => {
      end();
      if (!button.disabled) act();
    }, HOLD_MS);
  };
  const isKey = (event) => isWanted() && (event.key === "Enter" || event.key === " ");
  button.addEventListener("pointerdown", begin);
  for (const name of ["pointerup", "pointerleave", "pointercancel", "blur"]) button.addEventListener(name, end);
  button.addEventListener("keydown", (event) => {
    if (!isKey(event)) return;
    event.preventDefault();
    begin();
  });
  button.addEventListener("keyup", (event) => {
    if (!isKey(event)) return;
    event.preventDefault();
    end();
  });
  button.addEventListener("contextmenu", (event) => isWanted() && event.preventDefault());
  // Assistive technology cannot hold a button: its click comes without a pointer.
  button.addEventListener("click", (event) => (!isWanted() || event.detail === 0) && act());
  return button;
}
