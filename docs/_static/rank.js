// Which pages answer a query: all that have any of its words, those that match best first. It reads the index that Sphinx
// makes and the words that people use instead of ours (keywords.js), and is never empty if some word exists, as it is
// or with a slip of typing. It is made in parts, none of which keeps a phone from answering a finger; the last returns
// the function from a query to its pages.
function* searchRanker(index, keywords, stemmed, stopwords) {
  const { docnames, terms, titleterms, alltitles, indexentries, objects, objtypes, titles } = index;
  // Words that most pages share say nothing, unless they stand alone.
  const COMMON = new Set("lora loras lora_np np use using vs versus error".split(" "));
  // What is to be used or learned from goes before functions, exercises and what is said to developers.
  const KINDS = [
    [/^develop\/changelog$/, 0.3], // which has all words
    [/^(practice\/|develop\/|reference\/causal$|use\/language-samples$|404$)/, 0.55],
    [/^(use\/|learn\/teaching$)/, 1.25],
    [/^understand\//, 1.2],
    [/^(learn|lessons)\//, 1.1],
    [/^claims\//, 0.95],
    [/^reference\//, 0.85],
  ];

  const PART = 600; // names whose stems are found in one part

  const split = (text) => text.toLowerCase().match(/[\p{L}\p{N}_]+/gu) ?? [];
  const many = (table, key) => (Object.hasOwn(table, key) ? [table[key]].flat() : []);
  const british = (word) => word.replace(/iz(?=e|ing|ation)/, "is");
  const roots = new Map(); // stems by words: names share them, and a stemmer is slow
  const stem = (word) => {
    if (!roots.has(word)) roots.set(word, stemmed(british(word)));
    return roots.get(word);
  };
  const telling = (text) => {
    const all = split(text);
    const some = all.filter((word) => !stopwords.has(word));
    const few = some.filter((word) => !COMMON.has(word) && !/^\d{1,2}$/.test(word));
    return [few, some, all].find((words) => words.length) ?? [];
  };
  const stems = (text) => new Set(telling(text).map(stem));

  const bare = (heading) => heading.replace(/^\d+\. |\(\d+ points?,.*/g, ""); // of an exercise

  // What a page is called, by itself and by others, and where on the page that is.
  const names = [];
  const name = (text, page, place, kind, type) => names.push({ page, place, kind, text, type });
  for (const [text, places] of Object.entries(alltitles))
    for (const [page, anchor] of places)
      name(text, page, anchor, titles[page] === text ? "title" : "section");
  for (const [text, places] of Object.entries(indexentries))
    for (const [page, anchor] of places)
      if (anchor?.startsWith("term-")) name(text, page, anchor, "term");
  for (const [prefix, members] of Object.entries(objects))
    for (const [page, type, , anchor, member] of members) {
      const whole = prefix ? `${prefix}.${member}` : member;
      if (/class|function/.test(objtypes[type]))
        name(member, page, anchor || whole, "object", type);
    }
  docnames.forEach((address, page) => {
    const last = address
      .replace(/\/index$/, "")
      .split("/")
      .at(-1);
    name(last.replace(/^\d+-/, "").replaceAll("-", " "), page, "", "address");
  });
  for (const [address, entries] of Object.entries(keywords)) {
    const page = docnames.indexOf(address);
    if (page >= 0) entries.forEach((entry) => name(entry, page, "", "keyword"));
  }

  const named = new Map(); // names by their stems
  for (const [place, each] of names.entries()) {
    if (place % PART === 0) yield;
    each.stems = stems(bare(each.text));
    for (const key of each.stems) {
      if (!named.has(key)) named.set(key, []);
      named.get(key).push(each);
    }
  }
  yield;
  const has = (key) =>
    [terms, titleterms].some((table) => Object.hasOwn(table, key)) || named.has(key);
  const known = new Map();
  // The pages that have a stem: 1 in the text, more in a heading or title. Found when they are asked for.
  function pagesOf(key) {
    if (!known.has(key)) {
      const pages = new Map();
      const note = (page, worth) => pages.set(page, Math.max(pages.get(page) ?? 0, worth));
      many(terms, key).forEach((page) => note(page, 1));
      many(titleterms, key).forEach((page) => note(page, 4));
      for (const { page, stems } of named.get(key) ?? []) note(page, 1 + 3 / stems.size);
      known.set(key, pages);
    }
    return known.get(key);
  }
  const worth = (key) => Math.log(1 + docnames.length / (pagesOf(key).size + 0.5));

  // Whole words, among which one with a slip of typing is looked for.
  const written = names
    .filter((each) => each.kind !== "object")
    .flatMap((each) => split(each.text));
  const spelled = new Set(written.filter((word) => has(stem(word))));
  function nearest(word) {
    const most = word.length < 4 ? 0 : word.length < 7 ? 1 : 2;
    let [found, least] = [undefined, Infinity];
    for (const other of spelled) {
      if (Math.abs(other.length - word.length) > most) continue;
      const far = distance(word, other);
      const unlike = far + (word[0] === other[0] ? 0 : 0.5); // people rarely miss the first letter
      if (far <= most && unlike < least) [found, least] = [other, unlike];
    }
    return found;
  }

  // The stems that a word stands for: its own, else what begins with it, its parts, or what it was meant to be.
  function meanings(word) {
    const own = [...new Set([stem(word), stemmed(word)])].filter(has);
    if (own.length) return own;
    const parts = word
      .split("_")
      .filter((part) => part && part !== word && !COMMON.has(part) && !stopwords.has(part));
    const found = parts.flatMap(meanings);
    if (found.length) return found;
    const right = nearest(word);
    if (right) return [stem(right)];
    return word.length < 3
      ? []
      : [...Object.keys(terms), ...Object.keys(titleterms), ...named.keys()]
          .filter((key) => key.startsWith(word))
          .slice(0, 8);
  }

  return (query) => {
    const asked = telling(query)
      .map(meanings)
      .filter((keys) => keys.length);
    const wanted = new Set(asked.flat());
    const total = asked.reduce((sum, keys) => sum + worth(keys[0]), 0) || 1;
    const score = new Map(),
      share = new Map(),
      best = new Map();
    for (const keys of asked) {
      const found = new Map();
      for (const key of keys)
        for (const [page, points] of pagesOf(key))
          found.set(page, Math.max(found.get(page) ?? 0, points));
      for (const [page, points] of found) {
        score.set(page, (score.get(page) ?? 0) + worth(keys[0]) * points);
        share.set(page, (share.get(page) ?? 0) + worth(keys[0]) / total);
      }
    }
    const weight = (page) => KINDS.find(([pages]) => pages.test(docnames[page]))?.[1] ?? 1;
    const text = [...score].map(([page, points]) => [
      page,
      points * share.get(page) ** 2 * weight(page),
    ]);
    text.sort(([, a], [, b]) => b - a);
    const points = new Map(text.map(([page], place) => [page, 1 / (2 + place)]));

    // How well a name fits: the share of the query that it has, times the share of it that the query has.
    const plain = split(query).join(" ");
    const BOOST = { keyword: 1, title: 0.9, address: 0.8, object: 0.8, term: 0.6, section: 0.4 };
    for (const each of names) {
      const both = [...each.stems]
        .filter((key) => wanted.has(key))
        .reduce((sum, key) => sum + worth(key), 0);
      if (!both) continue;
      const all = [...each.stems].reduce((sum, key) => sum + worth(key), 0);
      const whole = split(each.text).join(" ") === plain;
      const fits = BOOST[each.kind] * (whole ? 2 : Math.min(1, both / total) * (both / all));
      if (fits > (best.get(each.page)?.fits ?? 0)) best.set(each.page, { ...each, fits });
    }
    for (const [page, { fits }] of best) points.set(page, (points.get(page) ?? 0) + fits);
    return [...points]
      .sort(([, a], [, b]) => b - a)
      .map(([page, points]) => ({ page, points, name: best.get(page) }));
  };

  // Letters to add, take away, change or swap with the next one.
  function distance(a, b) {
    const rows = [Array.from({ length: b.length + 1 }, (_, j) => j)];
    for (let i = 1; i <= a.length; i++) {
      rows.push([i]);
      for (let j = 1; j <= b.length; j++) {
        const change = rows[i - 1][j - 1] + (a[i - 1] !== b[j - 1]);
        const swap =
          a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1] ? rows[i - 2][j - 2] + 1 : Infinity;
        rows[i].push(Math.min(change, swap, rows[i - 1][j] + 1, rows[i][j - 1] + 1));
      }
    }
    return rows[a.length][b.length];
  }
}
