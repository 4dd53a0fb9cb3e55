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

  // The pages that keywords.js names for a query go first. Words that all pages share say nothing, unless they stand alone.
  const COMMON = new Set("a an and are do does for how i in into is it lora loras my of on the to use with what".split(" "));
  const words = (text) => text.toLowerCase().replace(/[-?!,]+/g, " ").split(" ").filter(Boolean).map((word) => word.replace(/(?<=..[^s])s$/, ""));
  function matter(text) {
    const all = words(text), few = all.filter((word) => !COMMON.has(word));
    return (few.length ? few : all).sort().join(" ");
  }
  const ordered = Search._performSearch;
  Search._performSearch = (query, ...rest) => { // the last is shown first
    const found = ordered(query, ...rest), { docnames, titles, filenames } = Search._index, meant = matter(query);
    const whole = (text) => words(text).join(" ") === words(query).join(" ");
    const pages = Object.entries(window.searchKeywords)
      .map(([page, entries]) => [page, entries.some(whole) ? 2 : entries.some((entry) => matter(entry) === meant) ? 1 : 0])
      .filter(([page, score]) => score && docnames.includes(page)).sort(([, a], [, b]) => a - b).map(([page]) => page);
    const first = pages.map((page) => {
      const at = docnames.indexOf(page);
      return [page, titles[at], "", null, 1000, filenames[at], "title"];
    });
    return [...found.filter(([page, , anchor]) => anchor || !pages.includes(page)), ...first];
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
