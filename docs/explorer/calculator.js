// The calculator: a model, a rank and targets in, PEFT's count out. Its choices are kept in the address of the page.
(() => {
  "use strict";

  const form = document.getElementById("calculator");
  if (!form || !window.loraCalculator) return;

  const { families, presets } = window.loraCalculator;
  const { build, count, adaptable, leaf } = window.loraFamilies;
  const part = (name) => form.elements.namedItem(name);
  const show = (name, text) => { form.querySelector(`[data-show="${name}"]`).textContent = text; };
  const bars = form.querySelector(".calculator-bars");
  const error = form.querySelector(".calculator-error");
  const boxes = form.querySelector(".calculator-names");
  const whole = (n) => n.toLocaleString("en-US");
  const OWN = "your config.json";

  let spec, announce;

  const size = (bytes) => {
    const units = ["B", "kB", "MB", "GB", "TB"];
    const place = Math.min(4, Math.max(0, Math.floor(Math.log10(bytes) / 3)));
    return `${(bytes / 1000 ** place).toFixed(place ? 2 : 0)} ${units[place]}`;
  };

  for (const name of Object.keys(presets)) part("preset").append(new Option(name));
  part("preset").append(new Option(OWN));

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
  const rank = () => 2 ** Number(part("rank").value);

  function load(names) {
    const own = part("preset").value === OWN;
    if (own && !part("config").value.trim()) {
      form.querySelector("details").open = true;
      throw new Error("Paste a config.json, or choose a model.");
    }
    const config = own ? JSON.parse(part("config").value) : presets[part("preset").value];
    if (config === null || typeof config !== "object") throw new Error("A config.json holds one object.");
    spec = build(config, families, { name: own ? "config.json" : part("preset").value });
    offer(names);
  }

  function draw() {
    const targets = { default: null, "all-linear": "all-linear", some: ticked() }[chosen()];
    boxes.hidden = chosen() !== "some";
    show("rank", rank());
    part("rank").setAttribute("aria-valuetext", `rank ${rank()}`);
    if (targets && !targets.length) throw new Error("Choose at least one module.");
    const { trainable, base, total, percent, adapted } = count(spec, { rank: rank(), targets, dora: part("dora").checked });
    show("trainable", whole(trainable));
    show("base", whole(base));
    show("percent", `${percent.toFixed(percent < 0.1 ? 4 : 2)} %`);
    show("disk", size(trainable * Number(part("bytes").value)));
    const line = `trainable params: ${whole(trainable)} || all params: ${whole(total)} || trainable%: ${percent.toFixed(4)}`;
    form.querySelector(".calculator-peft").textContent = line;
    const flags = targets === null ? "" : ` --targets ${[targets].flat().join(",")}`;
    show("command", `lora-np count ${spec.name} --rank ${rank()}${flags}${part("dora").checked ? " --dora" : ""}`);
    drawBars(adapted);
    clearTimeout(announce);
    announce = setTimeout(() => show("status", line), 500);
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

  function attempt(step) {
    error.hidden = true;
    try {
      step();
      draw();
      remember();
    } catch (problem) {
      error.textContent = problem instanceof SyntaxError ? `This is not JSON: ${problem.message}` : problem.message;
      error.hidden = false;
      bars.replaceChildren();
      form.querySelector(".calculator-peft").textContent = "";
      for (const name of ["trainable", "percent", "base", "disk", "command"]) show(name, "–");
    }
  }

  // The address of the page says what is shown, unless it is the reader's own file.
  function remember() {
    if (part("preset").value === OWN) return;
    const state = new URLSearchParams({ model: part("preset").value, rank: rank(), targets: chosen() === "some" ? ticked().join(",") : chosen() });
    if (part("dora").checked) state.set("dora", "1");
    if (part("bytes").value !== "4") state.set("bytes", part("bytes").value);
    history.replaceState(null, "", `#${state}`);
  }

  function recall() {
    const state = new URLSearchParams(location.hash.slice(1));
    const model = state.get("model");
    part("preset").value = model in presets ? model : "llama-3-8b";
    const power = Math.round(Math.log2(Number(state.get("rank") ?? 8)));
    part("rank").value = power >= 0 && power <= 10 ? power : 3;
    const targets = state.get("targets") ?? "default";
    const named = !["default", "all-linear"].includes(targets);
    form.querySelector(`[name=targets][value="${named ? "some" : targets}"]`).checked = true;
    part("dora").checked = state.get("dora") === "1";
    if (state.get("bytes") === "2") part("bytes").value = "2";
    attempt(() => load(named ? targets.split(",") : undefined));
  }

  function own(text) {
    part("config").value = text;
    part("preset").value = OWN;
    attempt(() => load());
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  part("preset").addEventListener("change", () => attempt(() => load()));
  part("config").addEventListener("input", () => own(part("config").value));
  part("file").addEventListener("change", async () => part("file").files[0] && own(await part("file").files[0].text()));
  form.addEventListener("dragover", (event) => event.preventDefault());
  form.addEventListener("drop", async (event) => {
    const file = event.dataTransfer.files[0];
    if (!file) return;
    event.preventDefault();
    own(await file.text());
  });
  for (const name of ["rank", "dora", "bytes"]) part(name).addEventListener("input", () => spec && attempt(() => {}));
  form.querySelector("fieldset").addEventListener("change", () => spec && attempt(() => {}));
  window.addEventListener("hashchange", recall);
  recall();
})();
