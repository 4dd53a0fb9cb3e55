// What is meant by a name as people type it: as Names in lora_np/checks.py, with its tables.
(() => {
  "use strict";

  const { names, hub } = window.loraFit;
  const words = ({ noise }, name) => name.toLowerCase().split("/").pop().replace(new RegExp(noise, "g"),
    " ").match(new RegExp(names.word, "g")) ?? [];
  const letters = (word) => /^[a-z]+$/.test(word);
  const joined = (all) => [all.filter(letters).join(""), ...all.filter((word) => !letters(word))];
  const pairs = (name) => [...name].map((sign, i, all) => sign + all[i + 1]).slice(0, -1);

  const needed = (table, name) => {
    const all = words(table, name), free = new RegExp(`^(?:${table.free})$`);
    const kept = all.filter((word) => !free.test(word));
    return kept.length ? kept : all;
  };

  // What a name can mean: the first way of comparing that any known name passes decides.
  function several(table, text) {
    const optional = new RegExp(`^(?:${table.optional})$`);
    for (const own of [words, needed]) {
      const asked = new Set(own(table, text));
      const ways = [(name) => name.toLowerCase(), (name) => own(table, name).sort().join(" "),
        (name) => joined(own(table, name)).join(" ")].map((key) => {
        const wanted = key(text);
        return (name) => key(name) === wanted;
      });
      ways.push((name) => {
        const more = new Set(own(table, name)), has = [...asked].every((word) => more.delete(word));
        return asked.size && has && more.size && [...more].every((word) => optional.test(word));
      });
      for (const passes of ways) {
        const means = new Set(table.known.filter(([name]) => passes(name)).map(([, meant]) => meant));
        if (means.size) return [...means];
      }
    }
    return [];
  }

  function find(table, text) {
    const means = several(table, text);
    return means.length === 1 ? means[0] : "";
  }

  function alike(first, second) {
    const [one, other] = [new Set(first), new Set(second)];
    return (2 * [...one].filter((each) => other.has(each)).length) / Math.max(1, one.size + other.size);
  }

  // A name's family with its version, the version, and the size.
  function parts(table, name) {
    const all = needed(table, name), sizes = all.filter((word) => /^\d[\d.]*[bm]$/.test(word));
    return [pairs(all.filter((word) => !sizes.includes(word)).join("")),
      all.filter((word) => !letters(word) && !sizes.includes(word)),
      Math.max(0, ...sizes.map((word) => parseFloat(word) * (word.endsWith("b") ? 1e9 : 1e6)))];
  }

  function nearest(table, text, most = 5) {
    const scores = new Map(several(table, text).map((meant) => [meant, 9]));
    const [family, versions, size] = parts(table, text);
    for (const [name, meant] of table.known) {
      const other = parts(table, name);
      const closeness = size && other[2] ? 2 / (1 + Math.abs(Math.log2(size / other[2]))) : 0;
      const score = 2 * alike(family, other[0]) + alike(versions, other[1]) / 2 + closeness;
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
    find, several, nearest, memory, model, same, typed, gpu: (text) => find(names.gpus, text),
    models: (text) => nearest(names.models, typed(text)), gpus: (text) => nearest(names.gpus, text),
  };
})();
