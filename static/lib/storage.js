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

export const tabStorage = open("sessionStorage");
export const browserStorage = open("localStorage");
