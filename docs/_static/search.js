// Excerpts of what was found without TeX: a formula of letters as it is, any other as an ellipsis. And without what is
// said to readers who have no script.
(() => {
  "use strict";
  const plain = Search.htmlToText;
  const formula = (_, inline, display) => {
    const tex = inline ?? display;
    return /[\\{}^_&]/.test(tex) ? "…" : tex;
  };
  Search.htmlToText = (html, anchor) =>
    plain(html.replace(/<noscript>.*?<\/noscript>/gs, "").replace(/\\\((.+?)\\\)|\\\[(.+?)\\\]/gs, formula), anchor);
})();
