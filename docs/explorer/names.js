// What is meant by a name as people type it: the package's answers (see fit_data.py), by its words.
(() => {
  "use strict";

  const { names, hub, models, gpus } = window.loraFit;
  const word = new RegExp(names.word, "g");
  const answers = Object.fromEntries(
    ["models", "gpus"].map((kind) => {
      const found = new Map();
      for (const [meant, forms] of Object.entries(names[kind].means)) {
        for (const form of forms.split("|")) found.set(form, meant.split("|"));
      }
      return [kind, found];
    }),
  );

  const letters = (one) => /^[a-z]+$/.test(one);
  const joined = (all) => [all.filter(letters).join(""), ...all.filter((one) => !letters(one))];

  // All that a name can mean
  function several(kind, text) {
    const { noise, free } = names[kind],
      known = answers[kind];
    const last = text.toLowerCase().split("/").pop().replace(new RegExp(noise, "g"), " ");
    const all = last.match(word) ?? [],
      needed = all.filter((one) => !new RegExp(`^(?:${free})$`).test(one));
    const forms = [all, joined(all), needed, joined(needed)].map((form) => form.sort().join(" "));
    return [text.toLowerCase(), ...forms].map((form) => known.get(form)).find(Boolean) ?? [];
  }

  function find(kind, text) {
    const means = several(kind, text);
    return means.length === 1 ? means[0] : "";
  }

  // What it can mean, then the listed names that have most of its words
  function nearest(kind, text, listed, most = 5) {
    const words = text.toLowerCase().match(word) ?? [];
    const shared = (name) => words.filter((one) => name.toLowerCase().includes(one)).length;
    const close = listed.filter(shared).sort((a, b) => shared(b) - shared(a));
    return [...new Set([...several(kind, text), ...close])].slice(0, most);
  }

  // The bytes of a memory typed instead of a GPU, or 0; one GB is 2^30.
  function memory(text) {
    const [whole, number, unit] =
      /^([\d.]+)\s*(?:([kmgt])i?b|g)?$/.exec(text.trim().toLowerCase()) ?? [];
    if (!whole || (whole === number && /^\d{4}/.test(number))) return 0;
    return Math.trunc(Number(number) * 1024 ** (1 + "kmgt".indexOf(unit ?? "g"))) || 0;
  }

  const typed = (text) =>
    text.trim().replace(/^https?:\/\/(?:www\.)?huggingface\.co\/([^/]+\/[^/]+).*/i, "$1");
  const model = (text) => find("models", typed(text));
  // What to say of a model found by another name than its own.
  const same = (text) => {
    const meant = model(text),
      name = typed(text);
    return !meant || [meant, hub[meant]].some((own) => own.toLowerCase() === name.toLowerCase())
      ? ""
      : `${name}: same shapes as ${meant}`;
  };

  window.loraNames = {
    several,
    memory,
    model,
    same,
    typed,
    gpu: (text) => find("gpus", text),
    models: (text) => nearest("models", typed(text), Object.keys(models)),
    gpus: (text) => nearest("gpus", text, Object.keys(gpus)),
  };
})();
