// Storage of this window, this tab and this browser. A browser may deny storage to a page that another site frames; its
// values then last as long as its window.

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

/** Storage of one frame, in its history entry, which survives a reload: frames of a tab share sessionStorage. */
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
/** For this window only. */
export const windowStorage = window.parent === window ? tabStorage : openHistory();
export const browserStorage = open("localStorage");
