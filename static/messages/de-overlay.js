// The overlay, in German.
export default {
  "overlay.next": "Als Nächstes",
  "overlay.count": { one: "{n} wartet", other: "{n} warten" },
  "overlay.time": "{elapsed} von {of}",
  "overlay.paused": "Gleich zurück",
  "overlay.closed": "Zurzeit keine Wünsche",
  "overlay.open": "Wünsche sind offen",
};
