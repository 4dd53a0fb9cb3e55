// Regular expressions in Python's syntax that cannot backtrack endlessly: what lora_np.models.expressions does.
// All positions that an expression can have reached advance together (Thompson, 1968); the work is counted.
window.loraExpressions = (() => {
  "use strict";

  const { fail, shown } = window.loraTensors;
  const LONGEST = 4000, STEPS = 1e6, DEEPEST = 100;
  const ONE = /\[\^?\]?(?:\\[^]|[^\]\\])*\]|\\[dDsSwW]|\\[^\w\s]|\\[nrtfv]|[^\\[\]().|?*+{}^$]|[\]{}]|\./uy; // what takes one character
  const ANCHORS = new Map([["^", "^"], ["$", "$"], ["\\A", "^"], ["\\Z", "$"], ["\\b", "\\b"], ["\\B", "\\B"]]);
  const REPEAT = /([*+?]|\{\d{0,5}(?:,\d{0,5})?\})(\??)/y;

  function parsed(text, what) {
    let at = 0;
    const bad = (why = "it is none that this page matches") => fail(`${what} ${shown(text)} must be a regular expression: ${why}`);
    const ahead = (word) => (text.startsWith(word, at) ? (at += word.length, true) : false);

    function branches(depth) {
      if (depth > DEEPEST) bad("it is nested too deeply");
      const found = [sequence(depth)];
      while (ahead("|")) found.push(sequence(depth));
      return found.length > 1 ? { kind: "branch", found } : found[0];
    }

    function sequence(depth) {
      const items = [];
      while (at < text.length && text[at] !== "|" && text[at] !== ")") items.push(repeated(item(depth)));
      return { kind: "all", items };
    }

    function repeated(inner) {
      REPEAT.lastIndex = at;
      const match = REPEAT.exec(text);
      if (!match || match[1] === "{}" || match[1] === "{,}") return match ? bad() : inner;
      at += match[0].length;
      if (inner.kind === "anchor" || /[*+?]/.test(text[at] ?? "")) bad("a repeat of what is none");
      const [least, most] = { "*": [0, Infinity], "+": [1, Infinity], "?": [0, 1] }[match[1]] ?? bounds(match[1]);
      return { kind: "repeat", least, most, inner };
    }

    function bounds(said) {
      const [low, high = low] = said.slice(1, -1).split(",");
      const [least, most] = [Number(low || 0), high === "" ? Infinity : Number(high)];
      return least > most ? bad("a repeat from more to less") : [least, most];
    }

    function item(depth) {
      for (const [word, own] of ANCHORS) if (ahead(word)) return { kind: "anchor", test: new RegExp(own, "y") };
      if (ahead("(")) {
        const look = ["?=", "?!"].find(ahead);
        if (!look && text[at] === "?" && !ahead("?:") && !/^\?P<\w+>/.test(text.slice(at))) bad();
        if (!look && text[at] === "?") at = text.indexOf(">", at) + 1;
        const inner = branches(depth + 1);
        if (!ahead(")")) bad("a parenthesis is missing");
        return look ? { kind: "look", inner, wanted: look === "?=" } : inner;
      }
      ONE.lastIndex = at;
      const [token] = ONE.exec(text) ?? bad();
      at += token.length;
      try {
        return { kind: "one", test: new RegExp(token.replace(/^\[(\^?)\]/, "[$1\\]").replace(/^[\]{}]$/, "\\$&"), "uy") };
      } catch {
        return bad();
      }
    }

    const tree = branches(0);
    return at < text.length ? bad("a parenthesis is missing") : tree;
  }

  // Whether whole names match; with `end`, from their start or from a dot on, as in PEFT's rank_pattern.
  function expression(text, what, end = false) {
    if (text.length > LONGEST) fail(`${what} must have at most ${LONGEST} characters, got ${text.length}`);
    const tree = parsed(text, what);
    let steps = 0;

    function ends(item, starts, name) {
      steps += starts.size + 1;
      if (steps > STEPS) fail(`${what} ${shown(text)} takes too many steps: write it with fewer repeats, or as a list of names`);
      if (!starts.size) return starts;
      const matches = (place) => { item.test.lastIndex = place; return item.test.exec(name); };
      switch (item.kind) {
        case "one": return new Set([...starts].filter(matches).map((place) => place + 1));
        case "anchor": return new Set([...starts].filter(matches));
        case "look": return new Set([...starts].filter((place) => Boolean(ends(item.inner, new Set([place]), name).size) === item.wanted));
        case "branch": return new Set(item.found.flatMap((each) => [...ends(each, starts, name)]));
        case "all": return item.items.reduce((places, each) => ends(each, places, name), starts);
        default: return repeat(item, starts, name);
      }
    }

    function repeat({ least, most, inner }, starts, name) {
      for (let n = 0; n < Math.min(least, name.length + 1); n++) starts = ends(inner, starts, name);
      const found = new Set(starts);
      for (let n = 0; n < Math.min(most - least, name.length + 1) && starts.size; n++) {
        starts = new Set([...ends(inner, starts, name)].filter((place) => !found.has(place)));
        for (const place of starts) found.add(place);
      }
      return found;
    }

    return (name) => {
      const starts = new Set([0]);
      if (end) [...name].forEach((character, i) => { if (character === ".") starts.add(i + 1); });
      return ends(tree, starts, name).has(name.length);
    };
  }

  const EXACT = /^\^((?:[\w-]|\\[.-])+)\$?$/; // one whole path, as adapters are written
  const ends = (path) => path.split(".").map((_, i, parts) => parts.slice(i).join("."));

  // Values of modules by expressions, of which the first that matches counts: PEFT's rank_pattern and alpha_pattern.
  function patterns(values, what) {
    const exact = new Map(), others = [];
    Object.entries(values ?? {}).forEach(([key, value], place) => {
      const match = EXACT.exec(key);
      if (match) {
        const path = match[1].replaceAll("\\", "");
        if (!exact.has(path)) exact.set(path, { place, value });
      } else others.push({ place, value, matches: expression(key, what, true) });
    });
    if (others.length > 200) fail(`${what} has ${others.length} expressions; this page matches 200`);
    return (path, otherwise) => {
      const found = others.find(({ matches }) => matches(path)), one = exact.get(path);
      if (!found || (one && one.place < found.place)) return one ? one.value : otherwise;
      return found.value;
    };
  }

  // Which modules PEFT would adapt: lora_np.models.selection.matcher.
  function matcher(config) {
    const ending = (names, what) => {
      if (typeof names === "string") return expression(names, what);
      const wanted = new Set(names);
      return (path) => ends(path).some((end) => wanted.has(end));
    };
    const { target_modules: targets, exclude_modules: exclude, layers_to_transform: layers, layers_pattern: lists } = config;
    const drops = exclude?.length ? [ending(exclude, "exclude_modules")] : [];
    for (const name of config.modules_to_save ?? []) drops.push(expression(`(^|.*\\.)${name}($|\\..*)`, "modules_to_save"));
    const nothing = !targets?.length && (config.target_parameters?.length || config.trainable_token_indices);
    if (Array.isArray(targets) && !targets.length && !nothing) fail("target_modules must name at least one module, got an empty list");
    const all = !nothing && (targets === undefined || targets === null || (typeof targets === "string" && targets.toLowerCase() === "all-linear"));
    const wanted = nothing ? () => false : all ? () => true : ending(targets, "target_modules");
    const counted = Array.isArray(targets) && layers !== undefined && layers !== null && !(Array.isArray(layers) && !layers.length);
    const numbers = new Set([layers].flat()), number = numbering([lists ?? []].flat().filter(Boolean));
    const selects = counted ? (path) => targets.includes(path) || (wanted(path) && numbers.has(number(path))) : wanted;
    return (path) => selects(path) && !drops.some((drop) => drop(path));
  }

  // The number of the layer that a path belongs to
  function numbering(lists) {
    const named = lists.map((name) => expression(name, "layers_pattern", true));
    return (path) => {
      const parts = path.split(".");
      const places = parts.map((_, i) => i).filter((i) => i > 0 && i < parts.length - 1 && /^\d+$/.test(parts[i]));
      const [place] = named.length ? named.flatMap((each) => places.filter((i) => each(parts.slice(0, i).join(".")))) : places.filter((i) => i > 1);
      return place === undefined ? undefined : Number(parts[place]);
    };
  }

  return { expression, patterns, matcher, ends };
})();
