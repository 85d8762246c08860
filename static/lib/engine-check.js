// Runs in any browser, also in one that cannot read the page's module: it says so in place of a blank page.
// Chrome 111, Safari 16.4 and Firefox 113 are the first to have all of this.
(function () {
  var has = window.CSS && CSS.supports && CSS.supports("color", "color-mix(in srgb, red, blue)");
  if (has && "adoptedStyleSheets" in document && Array.prototype.at) return;
  document.getElementById("old-engine").removeAttribute("hidden");
})();
