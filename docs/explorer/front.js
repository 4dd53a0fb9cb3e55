// The front page: B and A are trained, as one watches, to turn a map of mountains into a portrait.
(() => {
  "use strict";

  const root = document.getElementById("front");
  if (!root || !window.loraFront) return;

  const D = 100, K = 120, STEPS = 300, RATE = 0.03;
  const WORK = 12; // products of a column and a row in one frame: what a slow machine does in 8 ms
  const { picture, prompt, voice, fit } = window.loraFront;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const find = (selector) => root.querySelector(selector);
  const part = (name) => find(`[data-part="${name}"]`);
  const show = (name, text) => { find(`[data-show="${name}"]`).textContent = text; };
  const whole = (n) => n.toLocaleString("en-US");
  const percent = (share) => `${Number((100 * share).toFixed(share < 0.0995 ? 1 : 0))} %`;
  const numbers = (text) => Float64Array.from(atob(text), (character) => character.charCodeAt(0) / 255);

  const start = numbers(picture.start);
  const change = numbers(picture.goal).map((value, i) => value - start[i]);
  function norm(values) {
    let sum = 0;
    for (let i = 0; i < values.length; i++) sum += values[i] * values[i];
    return Math.sqrt(sum);
  }
  const size = norm(change);

  // Numbers that are the same on every visit, between -1 and 1 (Lehmer's generator, Park and Miller 1988).
  let seed = 1;
  function random() {
    seed = (48271 * seed) % 2147483647;
    return (2 * seed) / 2147483647 - 1;
  }

  const slot = (n, fill) => ({ value: Float64Array.from({ length: n }, fill), m: new Float64Array(n), v: new Float64Array(n), g: new Float64Array(n) });
  const component = () => ({ b: slot(D, () => 0), a: slot(K, () => random() / Math.sqrt(K)) }); // a column of B, a row of A

  let components = [], learned = new Float64Array(D * K), steps = 0, missing = [1], work, frame, next;
  let drawn = 0, loss = ""; // points of the curve, and these as a path
  let product = new Float64Array(D * K); // of the step that is under way
  const error = new Float64Array(D * K);

  // Adam, with a rate that falls to zero by a half cosine.
  function adam({ value, m, v, g }, step) {
    const rate = RATE * 0.5 * (1 + Math.cos((Math.PI * step) / STEPS));
    const [first, second] = [1 - 0.9 ** step, 1 - 0.99 ** step];
    for (let i = 0; i < value.length; i++) {
      m[i] = 0.9 * m[i] + 0.1 * g[i];
      v[i] = 0.99 * v[i] + 0.01 * g[i] * g[i];
      value[i] -= (rate * (m[i] / first)) / (Math.sqrt(v[i] / second) + 1e-8);
    }
  }

  // One step of training, which pauses after each piece of work: B A, then the gradients (B A - change) A^T, B^T (B A - change).
  function* step() {
    product.fill(0);
    for (const { b, a } of components) {
      for (let i = 0, at = 0; i < D; i++) {
        const left = b.value[i];
        for (let j = 0; j < K; j++) product[at++] += left * a.value[j];
      }
      yield 1;
    }
    for (let i = 0; i < error.length; i++) error[i] = product[i] - change[i];
    for (const { b, a } of components) {
      b.g.fill(0);
      a.g.fill(0);
      for (let i = 0, at = 0; i < D; i++) {
        let sum = 0;
        const left = b.value[i];
        for (let j = 0; j < K; j++, at++) {
          sum += error[at] * a.value[j];
          a.g[j] += error[at] * left;
        }
        b.g[i] = sum;
      }
      yield 2;
    }
    [learned, product] = [product, learned];
    missing.push(norm(error) / size);
    steps += 1;
    for (const { b, a } of components) {
      adam(b, steps);
      adam(a, steps);
    }
  }

  // ---- pictures

  const canvases = Object.fromEntries([...root.querySelectorAll("canvas")].map((canvas) => [canvas.dataset.canvas, canvas]));

  // A pixel for each of 511 values from -1 to 1.
  function pixels(colour) {
    const image = new ImageData(511, 1);
    for (let i = 0; i < 511; i++) image.data.set([...colour((i - 255) / 255), 255], 4 * i);
    return new Uint32Array(image.data.buffer);
  }

  // From 0 to 1 in grey; or blue below zero, white at zero, orange above: hues that all can tell apart.
  const GREY = pixels((x) => Array(3).fill(255 * Math.max(0, x)));
  const SIGNED = pixels((x) => (x < 0 ? [255 + 255 * x, 255 + 165 * x, 255 + 95 * x] : [255 - 50 * x, 255 - 165 * x, 255 - 255 * x]));
  const images = {};

  function paint(name, width, height, value, colour) {
    const canvas = canvases[name];
    if (images[name]?.width !== width || images[name].height !== height) {
      [canvas.width, canvas.height, images[name]] = [width, height, new ImageData(width, height)];
    }
    const shown = new Uint32Array(images[name].data.buffer);
    for (let at = 0; at < shown.length; at++) {
      shown[at] = colour[Math.round(255 * Math.min(1, Math.max(-1, value(at)))) + 255];
    }
    canvas.getContext("2d").putImageData(images[name], 0, 0);
  }

  function pictures() {
    const rank = components.length;
    paint("W", K, D, (at) => start[at] + learned[at], GREY);
    paint("BA", K, D, (at) => 1.3 * learned[at], SIGNED);
    paint("B", rank, D, (at) => 1.6 * components[at % rank].b.value[Math.floor(at / rank)], SIGNED);
    paint("A", K, rank, (at) => 1.6 * components[Math.floor(at / K)].a.value[at % K], SIGNED);
  }

  // ---- curves: both have one scale of what is missing

  const narrow = matchMedia("(max-width: 40rem)").matches;
  const [WIDTH, LEFT, MIDDLE, RIGHT, TOP, BOTTOM] = narrow ? [400, 44, 222, 390, 26, 190] : [760, 56, 400, 740, 26, 170];
  const down = (share) => TOP + ((BOTTOM - TOP) * Math.log(share)) / Math.log(picture.errors.at(-1) * 0.9);
  const across = (n) => LEFT + ((MIDDLE - (narrow ? 22 : 30) - LEFT) * n) / STEPS;
  const along = (rank) => MIDDLE + ((RIGHT - MIDDLE) * rank) / 60;
  const point = (x, y) => `${x.toFixed(1)},${y.toFixed(1)}`;

  function svg(tag, attributes, text = "") {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.textContent = text;
    part("axes").append(element);
  }

  function axes() {
    find(".front-plot").setAttribute("viewBox", `0 0 ${WIDTH} ${BOTTOM + 42}`);
    for (const share of [1, 0.5, 0.2, 0.1, 0.05]) {
      svg("line", { class: "front-grid", x1: LEFT, x2: RIGHT, y1: down(share), y2: down(share) });
      svg("text", { x: LEFT - 6, y: down(share) + 4, "text-anchor": "end" }, percent(share));
    }
    for (const n of narrow ? [0, 150] : [0, 100, 200, 300]) svg("text", { x: across(n), y: BOTTOM + 18, "text-anchor": "middle" }, n);
    for (const rank of narrow ? [8, 20, 60] : [1, 8, 20, 40, 60]) svg("text", { x: along(rank), y: BOTTOM + 18, "text-anchor": "middle" }, rank);
    svg("text", { class: "front-title", x: LEFT, y: 14 }, narrow ? "missing, step by step" : "what is missing, step by step");
    svg("text", { class: "front-title", x: MIDDLE, y: 14 }, narrow ? "the least for each rank" : "the least that each rank can miss");
    svg("text", { x: across(150), y: BOTTOM + 36, "text-anchor": "middle" }, "steps");
    svg("text", { x: along(30), y: BOTTOM + 36, "text-anchor": "middle" }, "rank");
    part("best").setAttribute("d", `M${picture.errors.map((error, rank) => point(along(rank), down(error))).join("L")}`);
  }

  function curves() {
    const rank = components.length, now = missing.at(-1);
    while (drawn < missing.length) loss += `${drawn ? "L" : "M"}${point(across(drawn), down(missing[drawn++]))}`;
    part("loss").setAttribute("d", loss);
    part("dot").setAttribute("cx", along(rank));
    part("dot").setAttribute("cy", down(now));
    for (const [name, value] of Object.entries({ x1: LEFT, x2: along(rank), y1: down(picture.errors[rank]), y2: down(picture.errors[rank]) })) {
      part("line").setAttribute(name, value);
    }
    show("missing", `${percent(now)} is missing`);
    show("step", `step ${Math.min(steps, STEPS)} of ${STEPS}`);
  }

  // ---- training

  function verdict() {
    const rank = components.length, count = rank * (D + K);
    if (count > D * K) return `${whole(count)} numbers: more than the ${whole(D * K)} of a full update. Break-even is rank 54.`;
    return `${whole(count)} numbers learn instead of ${whole(D * K)}; the best of rank ${rank} misses ${percent(picture.errors[rank])}.`;
  }

  function train() {
    cancelAnimationFrame(frame);
    [steps, missing, work, drawn, loss] = [0, [missing.at(-1)], null, 0, ""];
    for (const { b, a } of components) for (const { m, v } of [b, a]) { m.fill(0); v.fill(0); }
    frame = requestAnimationFrame(advance);
  }

  function advance() {
    const from = steps, budget = still ? 10 * WORK : WORK; // a step in a frame, unless nothing is to be seen of it
    for (let done = 0; done < budget && steps < STEPS && (still || steps === from);) {
      work ??= step();
      const piece = work.next();
      if (piece.done) work = null;
      else done += piece.value;
    }
    if (still ? steps === STEPS : drawn < missing.length) {
      pictures();
      curves();
    }
    if (steps < STEPS) frame = requestAnimationFrame(advance);
    else if (next) take(next);
    else show("status", `Trained: ${percent(missing.at(-1))} is missing. ${verdict()}`);
  }

  function take(rank) {
    next = 0;
    while (components.length > rank) components.pop();
    while (components.length < rank) components.push(component());
    const count = rank * (D + K);
    find("#front-rank").value = rank;
    find("#front-rank").setAttribute("aria-valuetext", `rank ${rank}, ${whole(count)} numbers`);
    find(".front-factors").style.setProperty("--rank", rank);
    show("rank", rank);
    show("count", whole(count));
    show("share", `${Math.round((100 * count) / (D * K))} % of 12,000`);
    show("verdict", verdict());
    for (const button of root.querySelectorAll("[data-rank]")) button.setAttribute("aria-pressed", String(Number(button.dataset.rank) === rank));
    train();
  }

  find("#front-rank").addEventListener("input", (event) => take(Number(event.target.value)));
  for (const button of root.querySelectorAll("[data-rank]")) button.addEventListener("click", () => take(Number(button.dataset.rank)));
  find('[data-act="again"]').addEventListener("click", () => {
    const rank = components.length;
    [components, learned, missing, seed] = [[], new Float64Array(D * K), [1], 1];
    take(rank);
  });

  // ---- the model that writes

  const flowing = (text) => text.replace(/(?<!\n)\n(?![\n\d])/g, " "); // lines end at verses and paragraphs only

  function speak(i) {
    const { rank, loss, text } = voice[i];
    show("tuned", flowing(prompt + text));
    show("tuned-loss", loss.toFixed(2));
    show("tuned-name", rank ? `with the adapter, rank ${rank}` : "no adapter yet");
    [...part("voices").children].forEach((button, at) => button.setAttribute("aria-pressed", String(at === i)));
  }

  voice.forEach(({ rank }, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = rank ? `rank ${rank}` : "none";
    button.addEventListener("click", () => { turning = false; speak(i); });
    part("voices").append(button);
  });
  show("base", flowing(prompt + voice[0].text));
  show("base-loss", voice[0].loss.toFixed(2));
  let turning = !still;
  speak(still ? voice.length - 1 : 0);

  function turn(i) {
    if (!turning) return;
    speak(i);
    if (i + 1 < voice.length) setTimeout(turn, 1800, i + 1);
  }

  const seen = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    seen.disconnect();
    turn(0);
  }, { threshold: 0.6 });
  seen.observe(find(".front-voices"));

  // ---- a GPU and a model

  const choices = Object.fromEntries([...root.querySelectorAll("[data-choice]")].map((select) => [select.dataset.choice, select]));
  const offer = (select, names, chosen) => select.append(...names.map((name) => new Option(name, name, name === chosen, name === chosen)));
  offer(choices.model, Object.keys(fit.memory), "llama-3.1-8b");
  offer(choices.method, Object.keys(fit.memory["llama-3.1-8b"]), "LoRA, rank 16");
  offer(choices.gpu, Object.keys(fit.gpus), "RTX 4090");

  function answer() {
    const [model, method, gpu] = ["model", "method", "gpu"].map((name) => choices[name].value);
    const needed = fit.memory[model][method], room = fit.gpus[gpu];
    const gb = (bytes) => `${(Math.abs(bytes) / 1e9).toFixed(1)} GB`;
    part("bar").style.width = `${Math.min(100, (100 * needed) / room)}%`;
    part("bar").className = needed > room ? "over" : "";
    show("fit", needed <= room
      ? `It fits: ${gb(needed)} of ${gb(room)} that training may take, for texts of ${whole(fit.max_length)} tokens.`
      : `It does not fit: ${gb(needed)}, ${gb(needed - room)} more than training may take.`);
    const asked = { model, rank: 16, targets: "all-linear", method: method.split(/\W/)[0], gpu, max_length: fit.max_length };
    part("more").href = `use/fit.html#${new URLSearchParams(asked)}`;
  }

  for (const select of Object.values(choices)) select.addEventListener("input", answer);

  paint("W0", K, D, (at) => start[at], GREY);
  axes();
  answer();
  take(8);
  next = still ? 0 : 20; // who only watches sees what a higher rank buys
})();
