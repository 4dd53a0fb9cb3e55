// What is meant by a name as people type it: as Names in lora_np/checks.py, with its tables.
(() => {
  "use strict";

  const { names, hub } = window.loraFit;
  const words = ({ noise }, name) => name.toLowerCase().split("/").pop().replace(new RegExp(noise, "g"),
    " ").match(new RegExp(names.word, "g")) ?? [];
  const letters = (word) => /^[a-z]+$/.test(word);
  const joined = (all) => [all.filter(letters).join(""), ...all.filter((word) => !letters(word))];
  const pairs = (name) => [...name.toLowerCase().replace(/[^a-z0-9.]/g, "")].map(
    (sign, i, all) => sign + all[i + 1]).slice(0, -1);

  // What the names that pass mean: "" if they differ, undefined if none passes.
  function meaning(table, passes) {
    const means = new Set(table.known.filter(([name]) => passes(name)).map(([, meant]) => meant));
    return means.size ? (means.size === 1 ? [...means][0] : "") : undefined;
  }

  function find(table, text) {
    const keys = [(name) => name.toLowerCase(), (name) => words(table, name).sort().join(" "),
      (name) => joined(words(table, name)).join(" ")];
    for (const key of keys) {
      const asked = key(text), meant = meaning(table, (name) => key(name) === asked);
      if (meant !== undefined) return meant;
    }
    const asked = new Set(words(table, text)), optional = new RegExp(`^(?:${table.optional})$`);
    return (asked.size && meaning(table, (name) => {
      const more = new Set(words(table, name)), has = [...asked].every((word) => more.delete(word));
      return has && more.size && [...more].every((word) => optional.test(word));
    })) || "";
  }

  function alike(first, second) {
    const [one, other] = [new Set(first), new Set(second)];
    return (2 * [...one].filter((each) => other.has(each)).length) / Math.max(1, one.size + other.size);
  }

  function nearest(table, text, most = 5) {
    const scores = new Map(), [asked, signs] = [words(table, text), pairs(text)];
    for (const [name, meant] of table.known) {
      const score = alike(asked, words(table, name)) + alike(signs, pairs(name));
      scores.set(meant, Math.max(score, scores.get(meant) ?? 0));
    }
    return [...scores].sort(([a, x], [b, y]) => y - x || (a < b ? -1 : 1)).slice(0, most).map(
      ([meant]) => meant);
  }

  // A memory typed instead of a GPU, in bytes; one GB is 2^30 bytes. 0 if it is none.
  function memory(text) {
    const [whole, number, unit] = /^([\d.]+)\s*(?:([kmgt])i?b|g)?$/.exec(text.trim().toLowerCase()) ?? [];
    if (!whole || (whole === number && number.length > 3)) return 0;
    return Math.trunc(Number(number) * 1024 ** (1 + "kmgt".indexOf(unit ?? "g"))) || 0;
  }

  const typed = (text) => text.trim().replace(/^https?:\/\/(?:www\.)?huggingface\.co\/([^/]+\/[^/]+).*/i,
    "$1");
  const model = (text) => find(names.models, typed(text));
  // What to say of a model found by another name than its own.
  const same = (text) => {
    const meant = model(text), name = typed(text);
    return !meant || [meant, hub[meant]].some((own) => own.toLowerCase() === name.toLowerCase()) ?
      "" : `${name}: same shapes as ${meant}`;
  };

  window.loraNames = {
    find, nearest, memory, model, same, typed, gpu: (text) => find(names.gpus, text),
    models: (text) => nearest(names.models, typed(text)), gpus: (text) => nearest(names.gpus, text),
  };
})();
