// The front page, in English.
export default {
  "index.docs": "API",
  "index.headline": "Everybody sees their place. Nobody loses it.",
  "index.text":
    "A live queue for paid requests during a show. Viewers watch their place move, performers run the show with one button, and every token is either paid out or given back.",
  "index.performer": "Whose queue would you like to watch?",
  "index.watch": "Watch",
  "index.pages": "Four pages",
  "index.watchText": "Your place, your wait, who’s on stage, and what became of your tokens. Open to everybody.",
  "index.panelText":
    "For performers and their moderators: start, finish, pause, return tokens. Opens with a personal link.",
  "index.overlayText":
    "For the stream: what’s on and what’s next, on a transparent ground. Add it as a browser source.",
  "index.adminText":
    "For operators: every room, payments that need attention, and how long people wait. Opens with a personal link.",
  "index.panel": "Panel",
  "index.overlay": "Overlay",
  "index.admin": "Administration",
  "index.embed": "In your own site",
  "index.embedText":
    "One element shows viewers their place anywhere on your pages. The token comes from your server; colours and type follow CSS custom properties.",
  "missing.title": "There is no page here",
  "missing.text": "The address may be misspelled, or the link is older than the page it led to.",
  "missing.home": "To the front page",
};
