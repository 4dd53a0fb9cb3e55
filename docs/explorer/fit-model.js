// The model of the page Fit: a preset, found by its name or its hub's, or a config of one's own, whose terms
// the page's Python gives and which a link can carry.
(() => {
  "use strict";

  const { models, hub } = window.loraFit;
  const fail = (message, waits = false) => {
    throw Object.assign(new Error(message), { waits });
  };
  const LONGEST = 1 << 16; // of a config in a link, once unpacked
  const PARTS = document.currentScript.src.replace("fit-model.js", "fit-parts.json");
  const OWN_TARGETS = ["default", "all-linear", "attention"]; // whose terms every model has

  const { model: resolve, models: nearest, typed } = window.loraNames,
    { composed } = window.loraMemory,
    { make, bytes } = window.loraPrograms;

  // Under which name a model has the terms of these targets
  function targetsOf(model, targets) {
    if (OWN_TARGETS.includes(targets)) return targets;
    const same = (names) =>
      names.length === targets.length && targets.every((name) => names.includes(name));
    if (same(model.targets)) return "default";
    if (same(model.attention)) return "attention";
    return [...targets].sort().join(",");
  }

  // Another config, or another choice of modules: Python answers once, and then every setting is at hand.
  // `changed` is called when it has; until then an error says what is waited for.
  const asked = new Map();
  function fromPython(key, what, changed) {
    if (!asked.has(key)) {
      const entry = {};
      asked.set(key, entry);
      window.loraPage.ask({ kind: "fit", ...what }).then((answer) => {
        if (answer.refused) entry.error = answer.refused;
        else if (answer.stopped) asked.delete(key);
        else entry.answer = answer;
        changed(answer.stopped && `${answer.text} The command below does the same.`);
      });
    }
    const { error, answer } = asked.get(key);
    if (error) fail(error);
    return (
      answer ??
      fail(
        `The package is asked: its Python is fetched once, about ${window.loraPage.size} MB.`,
        true,
      )
    );
  }

  // The terms of a config, and its few fields that a link needs
  const own = (config, changed) => fromPython(JSON.stringify(config), { config }, changed);

  // What single modules of the presets take, in a file that comes when the page is first used
  let parts, coming;
  const fetchParts = () =>
    (coming ??= fetch(PARTS)
      .then((answer) => answer.json())
      .catch(() => ({}))
      .then((found) => {
        parts = found;
      }));
  addEventListener("focusin", fetchParts, { once: true });

  // A model with the terms of these targets too
  function withTargets(model, source, targets, changed) {
    const name = targetsOf(model, targets);
    if (name in model.lora) return name;
    if (source.model && !parts) {
      fetchParts().then(() => changed());
      fail("One moment.", true);
    }
    const known = parts?.[source.model],
      chosen = name.split(",");
    const ways =
      known && chosen.every((one) => model.names.includes(one))
        ? [known[0], known.flat()].map((some) => composed(some, chosen))
        : ["", "+dora"].map(
            (more) =>
              fromPython(JSON.stringify([source, name]), { ...source, targets: chosen }, changed)
                .terms.lora[name + more],
          );
    [model.lora[name], model.lora[`${name}+dora`]] = ways;
    return name;
  }

  // What was typed, to look for: all its words must be in the name or in the hub's.
  function matches(text) {
    const words = typed(text)
      .toLowerCase()
      .split(/[\s/]+/)
      .filter(Boolean);
    const found = Object.keys(models).filter((name) =>
      words.every((word) => `${name} ${hub[name]}`.toLowerCase().includes(word)),
    );
    return found.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  }

  const through = (content, stream) =>
    new Response(new Blob([content]).stream().pipeThrough(stream));

  // Text for the address of a page, and back.
  async function pack(config) {
    const packed = through(JSON.stringify(config), new CompressionStream("deflate-raw"));
    return btoa(String.fromCharCode(...new Uint8Array(await packed.arrayBuffer())))
      .replace(/\+/g, "-")
      .replace(/\//g, "_")
      .replace(/=+$/, "");
  }

  async function unpack(code) {
    try {
      const packed = bytes(code.replace(/-/g, "+").replace(/_/g, "/")),
        reader = through(packed, new DecompressionStream("deflate-raw")).body.getReader(),
        parts = [];
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

  const billions = (numbers) =>
    numbers < 1e9
      ? `${Math.round(numbers / 1e6)} M`
      : `${(numbers / 1e9).toFixed(numbers < 1e11 ? 1 : 0)} B`;

  // The field: a list below it that the arrows, a finger or a mouse choose from.
  function combo(field, list, { choose, paste }) {
    let active = -1,
      before = "",
      edited = false;

    function show(names) {
      active = -1;
      list.replaceChildren(
        ...names.map((name, i) => {
          const option = { role: "option", id: `fit-model-${i}`, ariaSelected: "false" },
            row = make("li", "", "", option);
          row.dataset.name = name;
          for (const text of [name, billions(models[name].total), hub[name]])
            row.append(make("span", text));
          return row;
        }),
      );
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
      if (rows[active]) rows[active].ariaSelected = "false";
      active = (active + step + rows.length + (active < 0 && step < 0 ? 1 : 0)) % rows.length;
      rows[active].ariaSelected = "true";
      rows[active].scrollIntoView({ block: "nearest" });
      field.setAttribute("aria-activedescendant", rows[active].id);
    }

    async function take(text) {
      hide();
      edited = false;
      await (text.trim().startsWith("{") ? paste(text) : choose(text));
      before = field.value;
    }

    field.addEventListener("focus", () => {
      before = field.value;
      field.select();
    });
    field.addEventListener("click", () => list.hidden && open());
    field.addEventListener("input", () => {
      const text = field.value;
      edited = true;
      if (text.trim().startsWith("{")) take(text);
      else show(offered(text));
    });
    field.addEventListener("keydown", (event) => {
      const { key } = event,
        chosen = list.children[active]?.dataset.name;
      if (key === "ArrowDown" || key === "ArrowUp") move(key === "ArrowDown" ? 1 : -1);
      else if (key === "Enter") take(chosen ?? field.value);
      else if (key === "Escape" && !list.hidden) {
        field.value = before;
        edited = false;
        hide();
      } else return;
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

  window.loraFitModel = { resolve, own, withTargets, pack, unpack, combo };
})();
