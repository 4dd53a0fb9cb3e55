// The model that speaks: its text under an adapter of any rank, on any layers and maps. Choices are kept in the address.
(() => {
  "use strict";

  const form = document.getElementById("speaker");
  if (!form || !window.loraSpeak || !window.loraSamples) return;

  const { load, adapted, generate, KINDS } = window.loraSpeak;
  const { read } = window.loraAdapter;
  const samples = window.loraSamples; // the first view, made when the page was built
  const root = new URL(document.documentElement.dataset.content_root || "./", location);
  const part = (name) => form.elements.namedItem(name);
  const show = (name, text) => { form.querySelector(`[data-show="${name}"]`).textContent = text; };
  const chosen = (name) => [...form.querySelectorAll(`[name=${name}]:checked`)].flatMap((box) => box.value.split(","));
  const boxes = (name) => [...form.querySelectorAll(`[name=${name}]`)];

  let opened, seed = 0, run = 0;

  function open() {
    opened ??= Promise.all(["austen/model.safetensors", "austen/config.json", "austen/tokenizer.json",
      "example-adapter/adapter_model.safetensors", "example-adapter/adapter_config.json"].map(async (name) => {
      const answer = await fetch(new URL(`_static/${name}`, root));
      return name.endsWith(".json") ? answer.json() : answer.arrayBuffer();
    })).then(([weights, config, tokenizer, factors, settings]) => ({
      model: load(weights, config, tokenizer), adapter: read(factors, settings),
    }));
    return opened;
  }

  const rank = () => Number(part("rank").value);

  function count() {
    const layers = new Set(chosen("layer")), kinds = new Set(chosen("kind"));
    let numbers = 0;
    for (const [kind, [d, k]] of Object.entries(samples.shapes)) if (kinds.has(kind)) numbers += rank() * (d + k) * layers.size;
    return numbers;
  }

  function state() {
    const address = new URL(location);
    const set = (name, value, usual) => {
      if (value === usual) address.searchParams.delete(name);
      else address.searchParams.set(name, value);
    };
    set("r", String(rank()), "8");
    set("prompt", part("prompt").value, samples.prompt);
    set("layers", chosen("layer").join(""), "0123");
    set("maps", chosen("kind").join(","), KINDS_IN_ORDER);
    history.replaceState(null, "", address);
    show("rank", rank() ? rank() : "0: no adapter");
    show("count", count().toLocaleString("en"));
    show("name", count() ? "Jane Austen's model, with the adapter for the King James Bible" : "Jane Austen's model as it is");
  }

  function text(prompt, said) {
    const start = document.createElement("b");
    start.textContent = prompt;
    form.querySelector("[data-show=text]").replaceChildren(start, said);
  }

  async function speak() {
    const mine = ++run;
    state();
    show("status", "");
    const { model, adapter } = await open();
    const layers = new Set(chosen("layer").map(Number)), kinds = new Set(chosen("kind"));
    const tuned = adapted(model, adapter, rank(), (layer, kind) => layers.has(layer) && kinds.has(kind));
    const prompt = part("prompt").value || samples.prompt;
    const words = generate(tuned, prompt, { seed, most: 240 });
    let said = "", spent = 0;
    const step = () => {
      if (mine !== run) return;
      const begin = performance.now();
      let ended = false;
      while (performance.now() - begin < 12 && !ended) {
        const { value, done } = words.next();
        ended = done;
        if (!done) said += value;
      }
      spent += performance.now() - begin;
      text(prompt, said);
      show("speed", Math.round((1000 * said.length) / spent).toLocaleString("en"));
      if (ended) show("status", prompt + said);
      else requestAnimationFrame(step);
    };
    step();
  }

  const KINDS_IN_ORDER = boxes("kind").map((box) => box.value).join(",");

  function restore() {
    const asked = new URLSearchParams(location.search);
    if (/^[0-8]$/.test(asked.get("r") || "")) part("rank").value = asked.get("r");
    if (asked.has("prompt")) part("prompt").value = asked.get("prompt").slice(0, 80);
    if (asked.has("layers")) for (const box of boxes("layer")) box.checked = asked.get("layers").includes(box.value);
    if (asked.has("maps")) for (const box of boxes("kind")) box.checked = asked.get("maps").includes(box.value);
    return ["r", "prompt", "layers", "maps"].some((name) => asked.has(name));
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    speak();
  });
  form.addEventListener("change", speak);
  part("rank").addEventListener("input", speak);
  part("again").addEventListener("click", () => {
    seed += 1;
    speak();
  });
  if (restore()) speak();
  else {
    state();
    text(samples.prompt, samples.text);
    show("speed", "");
  }
  window.loraSpeaker = { open };
})();
