// Shows what rank.js finds: a page, or the section, term or function on it that fits the query best. The page fetches every
// result for its excerpt, so it shows the twenty best. Excerpts come without their title, code, TeX, and what is said to
// readers who have no script: a formula of letters stays as it is, any other becomes an ellipsis.
(() => {
  "use strict";
  const MOST = 20;
  const FITS = 0.2; // what a section must fit to be shown instead of its page
  let ranked;

  function result({ page, points, name }) {
    const { docnames, filenames, objnames, titles } = Search._index;
    const title = titles[page];
    const shown = (text, anchor, said, kind) => [
      docnames[page],
      text,
      anchor,
      said,
      points,
      filenames[page],
      kind,
    ];
    if (name?.kind === "object") {
      const said = `${objnames[name.type][2]}, in ${title}`;
      return shown(name.place, `#${name.place}`, said, "object");
    }
    if (name?.kind === "term")
      return shown(`${title} > ${name.text}`, `#${name.place}`, null, "index");
    if (name?.kind === "section" && name.fits > FITS)
      return shown(`${title} > ${name.text}`, `#${name.place}`, null, "title");
    return shown(title, "", null, "title");
  }

  let making;
  const makeOn = () => {
    if (!making) {
      const stemmer = new Stemmer();
      const stem = (word) => stemmer.stemWord(word);
      making = searchRanker(Search._index, window.searchKeywords, stem, stopwords);
    }
    ranked = making.next().value;
  };

  // The ranker is made in some tasks and asked in another, so that none keeps a phone from answering a finger.
  const plainQuery = Search.query;
  Search.query = (query) =>
    setTimeout(() => {
      if (ranked) return plainQuery(query);
      makeOn();
      Search.query(query);
    });

  Search._performSearch = (query) => {
    // the last is shown first
    document.getElementById("search-progress")?.replaceChildren();
    while (!ranked) makeOn();
    return ranked(query).slice(0, MOST).map(result).reverse();
  };

  const FORMULA = /\\\((.+?)\\\)|\\\[(.+?)\\\]/gs;
  const formula = (_, inline, display) =>
    /[\\{}^_&]/.test(inline ?? display) ? "…" : (inline ?? display);
  Search.htmlToText = (html, anchor) => {
    const own = html.slice(html.indexOf("<article"), html.lastIndexOf("</article>")); // without menus, which are longer
    const main = new DOMParser().parseFromString(own, "text/html").querySelector('[role="main"]');
    const part = (anchor && main.querySelector(`#${CSS.escape(anchor.slice(1))}`)) || main;
    const text = ({ textContent }) => textContent.replace(FORMULA, formula).trim();
    if (anchor?.startsWith("#term-")) return text(part.nextElementSibling);
    part
      .querySelectorAll(
        ".headerlink, script, style, noscript, button, form, .highlight, .lesson-links",
      )
      .forEach((each) => each.remove());
    part.querySelector("h1, h2, h3, h4, h5, h6")?.remove();
    return text(part);
  };
})();
