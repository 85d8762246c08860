// The style of <performance-queue-position>. A site changes it by custom properties and ::part(); light and dark
// follow the color-scheme of its page.
export const sheet = new CSSStyleSheet();

sheet.replaceSync(`
:host {
--text: var(--queue-text, light-dark(#16171b, #f1f2f4));
--muted: var(--queue-muted, light-dark(#5d5e63, #a3a8b3));
--line: var(--queue-line, light-dark(#e3e1d9, #282c34));
--accent: var(--queue-accent, light-dark(#2747e8, #93a9ff));
display: block;
}
:host([hidden]), [hidden] { display: none !important; }
.card {
display: grid; grid-template-columns: auto minmax(0, 1fr); align-items: center; gap: 2px 16px; padding: 16px 20px;
min-block-size: 5.25rem; box-sizing: border-box; overflow-wrap: anywhere;
font: 400 1rem/1.4 var(--queue-font, system-ui, sans-serif); color: var(--text);
background: var(--queue-surface, light-dark(#fff, #16181d));
border: 1px solid var(--line); border-radius: var(--queue-radius, 14px);
}
p { margin: 0; }
.position {
grid-row: span 2; font-size: 3rem; font-weight: 650; line-height: 1; letter-spacing: -.04em; color: var(--accent);
}
.ahead { font-weight: 600; }
[hidden] ~ .ahead, [hidden] ~ .wait, .title, .money, .state, .actions { grid-column: 1 / -1; }
.wait, .title, .money, .state, button { font-size: .875rem; color: var(--muted); }
.card, button { font-variant-numeric: tabular-nums; }
.title { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2; overflow: hidden; }
.actions { display: flex; flex-wrap: wrap; gap: 8px; margin-block-start: 8px; }
button {
min-block-size: 40px; padding: 6px 14px; border: 1px solid var(--line); border-radius: 10px; background: none;
font-family: inherit; cursor: pointer;
}
button:focus-visible { outline: 2px solid var(--accent); }
.confirm { border-color: var(--accent); color: var(--accent); }
[data-stale] :is(.position, .ahead) { color: var(--muted); }
`);
