// The model of the page Fit: found by its name or its hub's, or built from a config of one's own, which a link can carry.
(() => {
  "use strict";

  const { families, presets, hub, sizes } = window.loraFit;
  const { build } = window.loraFamilies;
  const fail = (message) => { throw new Error(message); };
  const LONGEST = 1 << 16; // of a config in a link, once unpacked
  const HOST = /^https?:\/\/(?:www\.)?huggingface\.co\//;

  const built = new Map(), owned = new WeakMap(); // models, by names and by configs

  const { model: resolve, models: nearest } = window.loraNames;

  function presetSpec(name) {
    if (!built.has(name)) built.set(name, build(presets[name], families, { name }));
    return built.get(name);
  }

  function ownSpec(config) {
    if (config === null || typeof config !== "object" || Array.isArray(config)) fail("A config.json holds one object.");
    if (!owned.has(config)) owned.set(config, build(config, families, { name: "config.json" }));
    return owned.get(config);
  }

  // What was typed, to look for: all its words must be in the name or in the hub's.
  function matches(text) {
    const words = text.trim().replace(HOST, "").toLowerCase().split(/[\s/]+/).filter(Boolean);
    const found = Object.keys(presets).filter((name) => words.every((word) => `${name} ${hub[name]}`.toLowerCase().includes(word)));
    return found.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  }

  // What a config must be asked for, by any family: names of fields and of parts.
  const KNOWN = new Set(["model_type", "architectures", "id2label", "num_labels", "max_position_embeddings"]);
  for (const { fields = {}, parts = {} } of Object.values(families)) {
    for (const [name, entry] of Object.entries(fields)) [entry?.from ?? name].flat().forEach((each) => KNOWN.add(each));
    for (const { config } of Object.values(parts)) if (config) KNOWN.add(config);
  }

  const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

  // The fields without which the modules would be others. Each of the rest is left out, once that was tried.
  function needed(config) {
    const told = (fields) => { try { return JSON.stringify(ownSpec({ ...fields })); } catch { return ""; } };
    const want = told(config);
    const known = (fields) => Object.fromEntries(Object.entries(fields).filter(([name]) => KNOWN.has(name))
      .map(([name, value]) => [name, isObject(value) && name !== "id2label" ? known(value) : value]));
    const kept = known(config);
    if (isObject(kept.id2label)) {
      kept.num_labels = Object.keys(kept.id2label).length;
      delete kept.id2label;
    }
    const shrink = (fields) => {
      for (const [name, value] of Object.entries(fields)) {
        delete fields[name];
        if (told(kept) === want) continue;
        fields[name] = value;
        if (isObject(value)) shrink(value);
      }
    };
    if (!want || told(kept) !== want) return null;
    shrink(kept);
    return kept;
  }

  const through = (bytes, stream) => new Response(new Blob([bytes]).stream().pipeThrough(stream));

  // Text for the address of a page, and back.
  async function pack(config) {
    const bytes = new Uint8Array(await through(JSON.stringify(config), new CompressionStream("deflate-raw")).arrayBuffer());
    return btoa(String.fromCharCode(...bytes)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  }

  async function unpack(code) {
    try {
      const bytes = Uint8Array.from(atob(code.replace(/-/g, "+").replace(/_/g, "/")), (letter) => letter.charCodeAt(0));
      const reader = through(bytes, new DecompressionStream("deflate-raw")).body.getReader();
      const parts = [];
      for (let length = 0; ;) {
        const { done, value } = await reader.read();
        if (done) return JSON.parse(await new Blob(parts).text());
        length += value.length;
        if (length > LONGEST) {
          reader.cancel();
          fail("too long");
        }
        parts.push(value);
      }
    } catch {
      return fail("The address holds a config that cannot be read: copy the whole link.");
    }
  }

  const billions = (numbers) => (numbers < 1e9 ? `${Math.round(numbers / 1e6)} M` : `${(numbers / 1e9).toFixed(numbers < 1e11 ? 1 : 0)} B`);

  // The field: a list below it that the arrows, a finger or a mouse choose from.
  function combo(field, list, { choose, paste }) {
    let active = -1, before = "", edited = false;

    function show(names) {
      active = -1;
      list.replaceChildren(...names.map((name, i) => {
        const row = document.createElement("li");
        Object.assign(row, { role: "option", id: `fit-model-${i}`, ariaSelected: "false" });
        row.dataset.name = name;
        for (const text of [name, billions(sizes[name]), hub[name]]) row.append(Object.assign(document.createElement("span"), { textContent: text }));
        return row;
      }));
      list.hidden = !names.length;
      field.ariaExpanded = String(!list.hidden);
      field.removeAttribute("aria-activedescendant");
    }

    // The preset that is meant, then those with these words; if there are none, the closest.
    function offered(text) {
      const found = [...new Set([resolve(text), ...matches(text)])].filter(Boolean);
      return found.length ? found : nearest(text);
    }

    const hide = () => show([]);
    const open = () => show(matches(""));

    function move(step) {
      if (list.hidden) open();
      const rows = [...list.children];
      rows[active]?.setAttribute("aria-selected", "false");
      active = (active + step + rows.length + (active < 0 && step < 0 ? 1 : 0)) % rows.length;
      rows[active].setAttribute("aria-selected", "true");
      rows[active].scrollIntoView({ block: "nearest" });
      field.setAttribute("aria-activedescendant", rows[active].id);
    }

    async function take(text) {
      hide();
      edited = false;
      await (text.trim().startsWith("{") ? paste(text) : choose(text));
      before = field.value;
    }

    field.addEventListener("focus", () => { before = field.value; field.select(); });
    field.addEventListener("click", () => list.hidden && open());
    field.addEventListener("input", () => {
      const text = field.value;
      edited = true;
      if (text.trim().startsWith("{")) take(text);
      else show(offered(text));
    });
    field.addEventListener("keydown", (event) => {
      const { key } = event, chosen = list.children[active]?.dataset.name;
      if (key === "ArrowDown" || key === "ArrowUp") move(key === "ArrowDown" ? 1 : -1);
      else if (key === "Enter") take(chosen ?? field.value);
      else if (key === "Escape" && !list.hidden) { field.value = before; edited = false; hide(); }
      else return;
      event.preventDefault();
    });
    field.addEventListener("blur", () => {
      if (edited) take(list.children[active]?.dataset.name ?? (field.value.trim() || before));
      hide();
    });
    list.addEventListener("pointerdown", (event) => event.preventDefault()); // the field keeps the focus
    list.addEventListener("click", (event) => {
      const row = event.target.closest("[role=option]");
      if (row) take(row.dataset.name);
    });
  }

  window.loraFitModel = { resolve, presetSpec, ownSpec, needed, pack, unpack, combo };
})();
