// The front page, in German.
export default {
  "index.docs": "API",
  "index.headline": "Alle sehen ihren Platz. Niemand verliert ihn.",
  "index.text":
    "Eine Live-Warteschlange für bezahlte Wünsche während einer Show. Zuschauer sehen, wie sie vorrücken, die Bühne steuert alles mit einem Knopf, und jeder Token wird entweder ausgezahlt oder zurückgegeben.",
  "index.performer": "Wessen Warteschlange möchtest du sehen?",
  "index.watch": "Ansehen",
  "index.pages": "Vier Seiten",
  "index.watchText":
    "Dein Platz, deine Wartezeit, wer auf der Bühne ist und was aus deinen Token wurde. Für alle offen.",
  "index.panelText":
    "Für die Bühne und ihre Moderation: starten, beenden, anhalten, Token zurückgeben. Öffnet sich mit einem persönlichen Link.",
  "index.overlayText":
    "Für den Stream: was läuft und was kommt, auf durchsichtigem Grund. Als Browserquelle einbinden.",
  "index.adminText":
    "Für den Betrieb: alle Räume, Zahlungen, die jemanden brauchen, und wie lange gewartet wird. Öffnet sich mit einem persönlichen Link.",
  "index.panel": "Steuerung",
  "index.overlay": "Overlay",
  "index.admin": "Administration",
  "index.embed": "Auf deiner eigenen Seite",
  "index.embedText":
    "Ein Element zeigt Zuschauern ihren Platz, wo immer du willst. Der Token kommt von deinem Server; Farben und Schrift folgen CSS-Variablen.",
  "missing.title": "Hier ist keine Seite",
  "missing.text": "Die Adresse ist vielleicht falsch geschrieben, oder der Link ist älter als die Seite, zu der er führte.",
  "missing.home": "Zur Startseite",
};
