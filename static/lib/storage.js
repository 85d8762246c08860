// What this tab and this browser remember. A page that another site frames may be allowed no storage: it then forgets
// with its window.

function open(name) {
  try {
    return window[name];
  } catch {
    const kept = new Map();
    return {
      getItem: (key) => kept.get(key) ?? null,
      setItem: (key, value) => kept.set(key, value),
      removeItem: (key) => kept.delete(key),
    };
  }
}

/** What a frame remembers is in its entry of the history, which a reload keeps: frames of one tab share its storage. */
function openHistory() {
  const kept = { ...history.state };
  const write = () => history.replaceState(kept, "");
  return {
    getItem: (key) => kept[key] ?? null,
    setItem(key, value) {
      kept[key] = value;
      write();
    },
    removeItem(key) {
      delete kept[key];
      write();
    },
  };
}

export const tabStorage = open("sessionStorage");
/** Of this window alone. */
export const windowStorage = window.parent === window ? tabStorage : openHistory();
export const browserStorage = open("localStorage");
