// Excerpts of what was found without TeX: a formula of letters as it is, any other as an ellipsis. And without what is
// said to readers who have no script, and the buttons of a lesson.
// Found first: the glossary, then pages that have the words in their title, and of these what is to be used or learned from
// before functions, exercises, and what is said to developers.
(() => {
  "use strict";
  const asked = (new URLSearchParams(location.search).get("q") ?? "").trim().toLowerCase();
  const WEIGHTS = [[/^(use|understand|learn)\//, 4], [/^lessons\//, 3], [/^claims\//, 1], [/^(practice|develop)\//, -4]];
  Scorer.score = ([page, title, anchor, , score, , kind]) => {
    const weight = WEIGHTS.find(([pages]) => pages.test(page))?.[1] ?? 0;
    if (kind === "object") return score - (anchor.startsWith("#module-") ? 10 : 0);
    const [, section] = title.split(" > "), heading = (section ?? title).toLowerCase();
    const named = heading.includes(asked) ? 5 + (10 * asked.length) / heading.length : 0;
    return score + weight + named - (section ? 8 : 0);
  };

  const plain = Search.htmlToText;
  const formula = (_, inline, display) => {
    const tex = inline ?? display;
    return /[\\{}^_&]/.test(tex) ? "…" : tex;
  };
  Search.htmlToText = (html, anchor) => {
    const readable = html
      .replace(/<noscript>.*?<\/noscript>|<p class="lesson-links">.*?<\/p>/gs, "")
      .replace(/\\\((.+?)\\\)|\\\[(.+?)\\\]/gs, formula);
    if (!anchor?.startsWith("#term-")) return plain(readable, anchor);
    const term = new DOMParser().parseFromString(readable, "text/html").querySelector(anchor);
    return `${plain(readable, anchor)}: ${term.nextElementSibling.textContent.trim()}`;
  };
})();
