// Shows a message in browsers that cannot run the page's module. Chrome 111, Safari 16.4 and Firefox 113 are the first
// that can. It is written for any browser.
(function () {
  var has = window.CSS && CSS.supports && CSS.supports("color", "color-mix(in srgb, red, blue)");
  if (has && "adoptedStyleSheets" in document && Array.prototype.at) return;
  document.getElementById("old-engine").removeAttribute("hidden");
})();
