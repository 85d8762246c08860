// The overlay, in English.
export default {
  "overlay.next": "Up next",
  "overlay.count": { one: "{n} waiting", other: "{n} waiting" },
  "overlay.time": "{elapsed} of {of}",
  "overlay.paused": "Back in a moment",
  "overlay.closed": "Requests are closed for now",
  "overlay.open": "Requests are open",
};
