// Copying to the clipboard.

/** Copies `text`; `near`, the control that was used, keeps the focus. Resolves to whether that worked. */
export async function copyText(text, near) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // No clipboard for pages over plain http: what is selected can still be copied.
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
