// The model that speaks: the base, and beside it an adapter of any rank, on any layers and maps. Choices are
// kept in the address.
(() => {
  "use strict";

  const form = document.getElementById("speaker");
  if (!form || !window.loraSpeak || !window.loraSamples) return;

  const { load, read, adapted, generate } = window.loraSpeak;
  // with the first view of each adapter, made when the page was built
  const { most, temperature: BEST, styles } = window.loraSamples;
  const LIKELIER = Math.log(10); // from here on a word is marked
  const NUMBERS = 750720; // of the base
  const { address, make, svg, set, whole, still, flowing, remember } = window.loraPrograms;
  const { find, part, show } = window.loraPrograms.parts(form);
  const boxes = (name) => [...form.querySelectorAll(`[name=${name}]`)];
  const chosen = (name) =>
    boxes(name)
      .filter((box) => box.checked)
      .flatMap((box) => box.value.split(","));
  const all = (name) => boxes(name).every((box) => box.checked);

  let seed = 0,
    run = 0;

  // ---- files, each of them once, and only when something is to be said that is not recorded

  const kept = new Map();
  const once = (key, make) => {
    if (!kept.has(key)) kept.set(key, make());
    return kept.get(key);
  };
  const files = (folder, names) =>
    Promise.all(
      names.map(async (name) => {
        const answer = await fetch(address(`_static/${folder}/${name}`));
        return name.endsWith(".json") ? answer.json() : answer.blob();
      }),
    );
  const base = () =>
    once("", async () =>
      load(...(await files("austen", ["model.safetensors", "config.json", "tokenizer.json"]))),
    );
  const adapter = (folder) =>
    once(folder, async () => read(...(await files(folder, ["ordered.safetensors"]))));

  async function open(name = part("adapter").value) {
    const [model, found] = await Promise.all([base(), adapter(styles[name].folder)]);
    return { model, adapter: found };
  }

  // ---- choices

  const style = () => styles[part("adapter").value];
  const rank = () => style().losses[Number(part("rank").value)][0];
  const temperature = () => Number(part("temperature").value);
  const recorded = () =>
    seed === 0 &&
    part("prompt").value === style().prompt &&
    temperature() === BEST &&
    rank() === style().losses.at(-1)[0] &&
    all("layer") &&
    all("kind");

  function count() {
    const layers = chosen("layer").length,
      kinds = new Set(chosen("kind"));
    let numbers = 0;
    for (const [kind, [d, k]] of Object.entries(style().shapes))
      if (kinds.has(kind)) numbers += rank() * (d + k) * layers;
    return numbers;
  }

  const values = (inputs) => inputs.map(({ value }) => value).join(",");

  function state() {
    const checked = (name) => boxes(name).filter((box) => box.checked);
    remember(
      form,
      {
        adapter: part("adapter").value,
        "adapter-r": rank(),
        prompt: part("prompt").value,
        t: temperature(),
        layers: values(checked("layer")),
        maps: values(checked("kind")),
      },
      {
        adapter: Object.keys(styles)[0],
        "adapter-r": style().losses.at(-1)[0],
        prompt: style().prompt,
        t: BEST,
        layers: values(boxes("layer")),
        maps: values(boxes("kind")),
      },
    );
    const { losses, title } = style(),
      numbers = count();
    // losses were measured for whole adapters only
    const measured = !numbers || (all("layer") && all("kind"));
    const loss = numbers ? losses[Number(part("rank").value)][1] : losses[0][1];
    part("rank").ariaValueText = `rank ${rank()}`;
    show("rank", rank() ? rank() : "0: no adapter");
    show(
      "temperature",
      `${temperature()}${temperature() === BEST ? ", the best" : `; the best is ${BEST}`}`,
    );
    show("count", whole(numbers));
    show("name", numbers ? `With the adapter: ${title}` : "No adapter: the same");
    show("base-loss", losses[0][1].toFixed(2));
    show("loss", measured ? loss.toFixed(2) : "not measured for a part");
    show(
      "verdict",
      numbers
        ? `${whole(numbers)} parameters, ${((100 * numbers) / NUMBERS).toFixed(1)} % of the model` +
            `${measured ? `: loss ${losses[0][1].toFixed(2)} falls to ${loss.toFixed(2)}` : ""}.`
        : "Nothing is added to the base.",
    );
    plot(measured, loss);
  }

  // ---- the loss of each rank

  function plot(measured, loss) {
    const { losses } = style(),
      last = losses.length - 1,
      high = losses[0][1],
      low = losses.at(-1)[1];
    const across = (i) => 6 + (300 * i) / last;
    const down = (value) => 26 + (54 * (high - value)) / (high - low);
    const points = losses.map(([, value], i) => `${across(i)},${down(value).toFixed(1)}`);
    set(find(".speaker-line"), { d: `M${points.join("L")}` });
    find('[data-part="points"]').replaceChildren(
      ...losses.map(([r], i) => svg("text", { x: across(i), y: 100, "text-anchor": "middle" }, r)),
    );
    const at = losses.findIndex(([, value]) => value === loss),
      dot = find(".speaker-dot"),
      label = find(".speaker-loss");
    for (const element of [dot, label]) element.classList.toggle("partly", !measured);
    set(dot, { cx: across(at), cy: down(loss) });
    set(label, { x: Math.min(across(at) + 8, 290), y: down(loss) - 8 }, loss.toFixed(2));
  }

  // ---- texts

  // The prompt in bold, and after it words, marked where the adapter makes them likelier.
  function text(name, prompt, said, gains) {
    const words = [...flowing(said).matchAll(/\s+|\S+/g)].map(({ 0: word, index }) => {
      let gain = 0;
      for (let i = index; i < index + word.length; i++) gain += gains?.[i] ?? 0;
      if (gain < LIKELIER || !word.trim()) return word;
      return make("mark", word);
    });
    find(`[data-show="${name}"]`).replaceChildren(make("b", prompt), ...words);
  }

  const told = (prompt, { base, text }) =>
    show("status", `Without the adapter: ${prompt}${base} With it: ${prompt}${text}`);
  const voice = (words) => ({ words, said: "", gains: [], ended: false });

  async function speak() {
    const mine = ++run;
    state();
    show("status", "");
    const prompt = part("prompt").value || style().prompt;
    if (recorded()) {
      text("base", prompt, style().base);
      text("text", prompt, style().text, style().gains);
      show("speed", "recorded");
      return told(prompt, style());
    }
    const { model, adapter } = await open();
    if (mine !== run) return;
    const layers = new Set(chosen("layer").map(Number)),
      kinds = new Set(chosen("kind"));
    const tuned = adapted(
      model,
      adapter,
      rank(),
      (layer, kind) => layers.has(layer) && kinds.has(kind),
    );
    const settings = { seed, most, temperature: temperature() };
    const voices = {
      base: voice(generate(model, prompt, settings)),
      text: voice(generate(tuned, prompt, { ...settings, other: model })),
    };
    let spent = 0;
    const step = () => {
      if (mine !== run) return;
      const begin = performance.now(),
        speaking = Object.values(voices);
      while (performance.now() - begin < 12 && speaking.some(({ ended }) => !ended)) {
        for (const each of speaking) {
          const { value, done } = each.words.next();
          each.ended = done;
          if (done) continue;
          each.said += value.character;
          each.gains.push(value.gain);
        }
      }
      spent += performance.now() - begin;
      const ended = speaking.every((each) => each.ended);
      if (ended || !still) {
        text("base", prompt, voices.base.said);
        text("text", prompt, voices.text.said, voices.text.gains);
      }
      show(
        "speed",
        whole(Math.round((1000 * (voices.base.said.length + voices.text.said.length)) / spent)),
      );
      if (!ended) requestAnimationFrame(step);
      else told(prompt, { base: voices.base.said, text: voices.text.said });
    };
    step();
  }

  // Another adapter begins with all its ranks, and with its own prompt unless the reader has written one.
  function take() {
    if (
      Object.values(styles).some(({ prompt }) => prompt === part("prompt").value) ||
      !part("prompt").value
    )
      part("prompt").value = style().prompt;
    part("rank").max = style().losses.length - 1;
    part("rank").value = part("rank").max;
    speak();
  }

  function restore() {
    const asked = new URLSearchParams(location.search);
    if (Object.hasOwn(styles, asked.get("adapter"))) part("adapter").value = asked.get("adapter");
    part("rank").max = style().losses.length - 1;
    const at = style().losses.findIndex(([r]) => String(r) === asked.get("adapter-r"));
    part("rank").value = at < 0 ? part("rank").max : at;
    part("prompt").value = (asked.get("prompt") ?? style().prompt).slice(0, 80);
    part("temperature").value = /^\d(\.\d)?$/.test(asked.get("t")) ? asked.get("t") : BEST;
    if (asked.has("layers"))
      for (const box of boxes("layer")) box.checked = asked.get("layers").includes(box.value);
    if (asked.has("maps"))
      for (const box of boxes("kind")) box.checked = asked.get("maps").includes(box.value);
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", (event) => {
    if (event.target.name === "adapter") take();
    else if (event.target.type !== "range") speak();
  });
  for (const name of ["rank", "temperature"]) part(name).addEventListener("input", speak);
  part("again").addEventListener("click", () => {
    seed += 1;
    speak();
  });
  restore();
  speak();
  window.loraSpeaker = { open };
})();
