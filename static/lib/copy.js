// Copying to the clipboard.

/** Copies `text`; `near`, the pressed control, keeps the focus. Resolves to whether it was copied. */
export async function copyText(text, near) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Pages over plain http have no clipboard API, but can copy a selection.
    const area = document.createElement("textarea");
    area.className = "visually-hidden";
    area.value = text;
    near.after(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    near.focus();
    return copied;
  }
}
