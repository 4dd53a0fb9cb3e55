// The calculator: a model, a rank and targets in, PEFT's count and the memory of training out. Its choices are kept in the
// address of the page.
(() => {
  "use strict";

  const form = document.getElementById("calculator");
  if (!form || !window.loraCalculator) return;

  const { families, presets, memory: tables, capacity } = window.loraCalculator;
  const { build, count, adaptable, leaf } = window.loraFamilies;
  const { compare } = window.loraMemory;
  const part = (name) => form.elements.namedItem(name);
  const show = (name, text) => { form.querySelector(`[data-show="${name}"]`).textContent = text; };
  const bars = form.querySelector(".calculator-bars");
  const error = form.querySelector(".calculator-error"), memoryError = form.querySelector(".calculator-memory-error");
  const boxes = form.querySelector(".calculator-names");
  const stacks = form.querySelector(".calculator-stacks"), causes = form.querySelector(".calculator-causes tbody");
  const whole = (n) => n.toLocaleString("en-US");
  const OWN = "your config.json";
  const NUMBERS = ["rank", "batch_size", "context"];

  let spec, announce;

  const size = (bytes) => {
    const units = ["B", "kB", "MB", "GB", "TB"];
    const place = Math.min(4, Math.max(0, Math.floor(Math.log10(bytes) / 3)));
    return `${(bytes / 1000 ** place).toFixed(place ? 2 : 0)} ${units[place]}`;
  };

  for (const name of Object.keys(presets)) part("preset").append(new Option(name));
  part("preset").append(new Option(OWN));
  for (const name of ["dtype", "optimizer"]) part(name).append(...tables.choices[name].map((choice) => new Option(choice)));

  // The names that can be adapted, as boxes to tick.
  function offer(ticked) {
    const names = [...new Set(spec.modules.filter(adaptable).map(({ name }) => leaf(name)))].filter((name) => name !== "*");
    const fused = Object.keys(spec.fused);
    const usual = ticked ?? spec.targets;
    boxes.replaceChildren(...[...new Set([...names, ...fused])].map((name) => {
      const label = document.createElement("label");
      const box = document.createElement("input");
      Object.assign(box, { type: "checkbox", name: "name", value: name, checked: usual.includes(name) });
      label.append(box, ` ${name}`);
      return label;
    }));
    const none = !spec.targets.length;
    form.querySelector('[value="default"]').disabled = none;
    if (none && chosen() === "default") form.querySelector('[value="all-linear"]').checked = true;
  }

  const chosen = () => part("targets").value;
  const ticked = () => [...boxes.querySelectorAll("input:checked")].map(({ value }) => value);
  const rank = () => Number(part("rank").value);

  // `asked`: the address says how long the context is, and is not corrected.
  function load(names, asked = false) {
    spec = undefined; // where this one is refused, no number is that of the model before
    const own = part("preset").value === OWN;
    if (own && !part("config").value.trim()) {
      form.querySelector("details").open = true;
      throw new Error("Paste a config.json, or choose a model.");
    }
    const config = own ? JSON.parse(part("config").value) : presets[part("preset").value];
    if (config === null || typeof config !== "object") throw new Error("A config.json holds one object.");
    spec = build(config, families, { name: own ? "config.json" : part("preset").value });
    offer(names);
    const missing = names?.find((name) => ![...boxes.querySelectorAll("input")].some(({ value }) => value === name));
    if (missing) throw new Error(`targets: '${missing}' matches no module of ${spec.name}.`);
    if (spec.positions) {
      part("context").max = spec.positions;
      if (!asked && Number(part("context").value) > spec.positions) part("context").value = spec.positions;
    } else part("context").removeAttribute("max");
  }

  function training() {
    const { checked: checkpointing } = part("checkpointing");
    const [dtype, optimizer] = ["dtype", "optimizer"].map((name) => part(name).value);
    return { dtype, optimizer, batch_size: Number(part("batch_size").value), context: Number(part("context").value), checkpointing };
  }

  // The options that are not the usual ones, in their order.
  const unusual = () => Object.entries(training()).filter(([name, value]) => value !== tables.usual[name]);

  function draw() {
    const targets = { default: null, "all-linear": "all-linear", some: ticked() }[chosen()];
    boxes.hidden = chosen() !== "some";
    if (targets && !targets.length) throw new Error("Choose at least one module.");
    const counted = count(spec, { rank: rank(), targets, dora: part("dora").checked });
    part("power").value = Math.round(Math.log2(rank()));
    part("power").setAttribute("aria-valuetext", `rank ${rank()}`);
    const { trainable, base, total, percent, adapted } = counted;
    show("trainable", whole(trainable));
    show("base", whole(base));
    show("percent", `${percent.toFixed(percent < 0.1 ? 4 : 2)} %`);
    show("disk", size(trainable * Number(part("bytes").value)));
    show("heart", byHeart(counted));
    const line = `trainable params: ${whole(trainable)} || all params: ${whole(total)} || trainable%: ${percent.toFixed(4)}`;
    form.querySelector(".calculator-peft").textContent = line;
    const flags = targets === null ? "" : ` --targets ${[targets].flat().join(",")}`;
    const command = `lora-np count ${spec.name} --rank ${rank()}${flags}${part("dora").checked ? " --dora" : ""}`;
    show("command", command);
    drawBars(adapted);
    estimate(counted, command);
    announce = setTimeout(() => show("status", line), 500);
  }

  // An option of memory that is wrong takes nothing from the count.
  function estimate(counted, command) {
    const { base, trainable } = counted;
    try {
      drawMemory(compare(counted, tables, training()), { full: 2 * base, LoRA: 4 * trainable, QLoRA: 4 * trainable });
      const asked = unusual().map(([name, value]) => (name === "checkpointing" ? " --no-checkpointing" : ` --${name.replace("_", "-")} ${value}`));
      show("memory-command", `${command} --memory${asked.join("")}`);
    } catch (problem) {
      eraseMemory();
      tell(memoryError, problem.message);
    }
  }

  function eraseMemory() {
    stacks.replaceChildren();
    stacks.setAttribute("aria-label", "not known");
    causes.replaceChildren();
    show("memory-note", "");
    show("memory-command", "–");
  }

  // Where something is wrong, and at the field that the message starts with.
  function tell(place, message) {
    place.textContent = message;
    place.hidden = false;
    for (const name of NUMBERS) if (message.startsWith(`${name} must`)) part(name).setAttribute("aria-invalid", "true");
  }

  // As lora_np.accounting.capacity: a range, where something was measured.
  function byHeart({ adapted, trainable }) {
    const least = Math.min(...adapted.map(({ module }) => Math.min(...module.shape.slice(-2))));
    if (part("dora").checked || rank() > Math.max(1, Math.floor(least / capacity.share))) return "not measured";
    return capacity.text.map((bits) => size((bits * trainable) / 8)).join(" to ");
  }

  function drawBars(adapted) {
    const sums = new Map();
    for (const { module, trainable } of adapted) {
      const name = leaf(module.name);
      sums.set(name, (sums.get(name) ?? 0) + trainable);
    }
    const largest = Math.max(...sums.values());
    bars.setAttribute("aria-label", [...sums].map(([name, n]) => `${name} ${whole(n)}`).join(", "));
    bars.replaceChildren(...[...sums].map(([name, numbers]) => {
      const row = document.createElement("div");
      const [label, track, value] = ["span", "span", "span"].map((tag) => document.createElement(tag));
      const bar = document.createElement("i");
      label.textContent = label.title = name;
      bar.style.width = `${(100 * numbers) / largest}%`;
      track.append(bar);
      value.textContent = whole(numbers);
      row.append(label, track, value);
      return row;
    }));
  }

  const element = (tag, text = "") => Object.assign(document.createElement(tag), { textContent: text });

  // A bar of its causes for each way, and the same as a table, whose first column says the colors.
  function drawMemory(ways, disk) {
    const names = Object.keys(ways), largest = Math.max(...names.map((way) => ways[way].total));
    const shown = (bytes) => (bytes === null ? "–" : size(bytes));
    stacks.setAttribute("aria-label", names.map((way) => `${way} ${size(ways[way].total)}`).join(", "));
    stacks.replaceChildren(...names.map((way) => {
      const row = element("div"), track = element("span"), sum = element("span", size(ways[way].total));
      row.dataset.way = way;
      sum.dataset.total = "";
      track.append(...Object.entries(ways[way].parts).filter(([, bytes]) => bytes).map(([cause, bytes]) => {
        const piece = element("i");
        piece.dataset.cause = piece.title = cause;
        piece.style.cssText = `width: ${(100 * bytes) / largest}%; background: ${tables.causes[cause]}`;
        return piece;
      }));
      row.append(element("span", way), track, sum);
      return row;
    }));
    const line = (cause, values) => {
      const row = element("tr"), head = element("th", cause);
      head.scope = "row";
      row.append(head, ...values.map((bytes) => element("td", shown(bytes))));
      return row;
    };
    causes.replaceChildren(
      ...Object.entries(tables.causes).map(([cause, color]) => {
        const row = line(cause, names.map((way) => ways[way].parts[cause])), swatch = element("i");
        swatch.style.background = color;
        row.firstChild.prepend(swatch);
        return row;
      }),
      line("total", names.map((way) => ways[way].total)),
      line("checkpoint on disk", names.map((way) => disk[way])),
    );
    const notes = [];
    if (ways.LoRA.parts.activations === null) notes.push("Activations, logits and workspace are not in the total: the layers are not known.");
    const hosts = names.filter((way) => ways[way].host).map((way) => `${size(ways[way].host)} (${way})`);
    if (hosts.length) notes.push(`Optimizer state that can wait in the memory of the host: ${hosts.join(", ")}.`);
    show("memory-note", notes.join(" "));
  }

  function attempt(step) {
    error.hidden = memoryError.hidden = true;
    for (const name of NUMBERS) part(name).removeAttribute("aria-invalid");
    clearTimeout(announce);
    try {
      step();
      draw();
      remember();
    } catch (problem) {
      tell(error, problem instanceof SyntaxError ? `This is not JSON: ${problem.message}` : problem.message);
      bars.replaceChildren();
      eraseMemory();
      form.querySelector(".calculator-peft").textContent = "";
      for (const name of ["trainable", "percent", "base", "disk", "heart", "command"]) show(name, "–");
    }
  }

  // The address of the page says what is shown, unless it is the reader's own file.
  function remember() {
    if (part("preset").value === OWN) return;
    const state = new URLSearchParams({ model: part("preset").value, rank: rank(), targets: chosen() === "some" ? ticked().join(",") : chosen() });
    if (part("dora").checked) state.set("dora", "1");
    if (part("bytes").value !== "4") state.set("bytes", part("bytes").value);
    for (const [name, value] of unusual()) state.set(name, Number(value) || value || 0);
    history.replaceState(null, "", `#${state}`);
  }

  function recall() {
    const state = new URLSearchParams(location.hash.slice(1));
    const model = state.get("model");
    part("preset").value = model in presets ? model : "llama-3-8b";
    part("rank").value = state.get("rank") ?? 8;
    const targets = state.get("targets") ?? "default";
    const named = !["default", "all-linear"].includes(targets);
    form.querySelector(`[name=targets][value="${named ? "some" : targets}"]`).checked = true;
    part("dora").checked = state.get("dora") === "1";
    if (state.get("bytes") === "2") part("bytes").value = "2";
    for (const name of ["dtype", "optimizer"]) {
      part(name).value = tables.choices[name].includes(state.get(name)) ? state.get(name) : tables.usual[name];
    }
    for (const name of ["batch_size", "context"]) part(name).value = state.get(name) ?? tables.usual[name];
    part("checkpointing").checked = state.get("checkpointing") !== "0";
    const known = { model: Object.keys(presets), dtype: tables.choices.dtype, optimizer: tables.choices.optimizer };
    const wrong = Object.keys(known).find((name) => state.has(name) && !known[name].includes(state.get(name)));
    attempt(() => {
      load(named ? targets.split(",") : undefined, state.has("context"));
      if (wrong) throw new Error(`The address asks for ${wrong} '${state.get(wrong)}', which is not in the list: choose one.`);
    });
  }

  async function read(file) {
    try {
      own(await file.text());
    } catch {
      tell(error, `${file.name} cannot be read: choose a config.json.`);
    }
  }

  function own(text) {
    part("config").value = text;
    part("preset").value = OWN;
    attempt(() => load());
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  part("preset").addEventListener("change", () => attempt(() => load()));
  part("config").addEventListener("input", () => own(part("config").value));
  part("file").addEventListener("change", () => part("file").files[0] && read(part("file").files[0]));
  form.addEventListener("dragover", (event) => event.preventDefault());
  form.addEventListener("drop", (event) => {
    const file = event.dataTransfer.files[0];
    if (!file) return;
    event.preventDefault();
    read(file);
  });
  part("power").addEventListener("input", () => { part("rank").value = 2 ** Number(part("power").value); });
  const inputs = ["power", "rank", "dora", "bytes", "dtype", "optimizer", "batch_size", "context", "checkpointing"];
  for (const name of inputs) part(name).addEventListener("input", () => spec && attempt(() => {}));
  form.querySelector("fieldset").addEventListener("change", () => spec && attempt(() => {}));
  window.addEventListener("hashchange", recall);
  recall();
})();
