// The front page: B and A learn to draw threes at the rank under the reader's hand; an adapter cut to lower
// ranks writes; and a model fits on a GPU, or does not.
(async () => {
  "use strict";

  const root = document.getElementById("front");
  if (!root || !window.loraFront) return;

  const { layer, prompt, voice, fit, llama } = window.loraFront;
  const D = 100,
    K = 120,
    MOST = 20,
    START = 8,
    NOISE = 0.01,
    SECONDS = 2.8,
    STEPS = 220;
  const ADAM = { beta2: 0.99, eps: 1e-9 };
  const find = (selector) => root.querySelector(selector),
    part = (name) => find(`[data-part="${name}"]`);
  const show = (name, text) => {
    for (const place of root.querySelectorAll(`[data-show="${name}"]`)) place.textContent = text;
  };
  const whole = (n) => n.toLocaleString("en-US"),
    still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const stage = part("stage");
  // Between parts of what is computed at the start, so that no task keeps a phone from answering a finger
  const rest = () => new Promise((goOn) => setTimeout(goOn));
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const W0 = Float64Array.from(
    new Int8Array(bytes(layer.W0).buffer),
    (level) => level * layer.step,
  );

  // ---- the task: the upper half of a digit of 8 x 8 goes in as 10 x 12, the whole comes out as 10 x 10

  const shades = bytes(layer.digits),
    N = shades.length / 32,
    TRAIN = N - layer.heldOut;
  const pixel = (n, i, j) => {
    const pair = shades[n * 32 + i * 4 + (j >> 1)];
    return (j & 1 ? pair & 15 : pair >> 4) / 15;
  };
  // Where pixel i of m lies among n: the one before it, and how far it is on the way to the next.
  function between(m, n, i) {
    const centre = Math.min(n - 1, Math.max(0, ((i + 0.5) * n) / m - 0.5)),
      before = Math.min(n - 2, Math.floor(centre));
    return [before, centre - before];
  }
  function resized(n, rows, height, width) {
    const out = new Float64Array(height * width);
    for (let i = 0; i < height; i++) {
      for (let j = 0; j < width; j++) {
        const [a, f] = between(height, rows, i),
          [b, g] = between(width, 8, j);
        out[i * width + j] =
          (1 - f) * ((1 - g) * pixel(n, a, b) + g * pixel(n, a, b + 1)) +
          f * ((1 - g) * pixel(n, a + 1, b) + g * pixel(n, a + 1, b + 1));
      }
    }
    return out;
  }
  const x = Array.from({ length: N }, (_, n) => resized(n, 4, 10, 12)),
    y = Array.from({ length: N }, (_, n) => resized(n, 8, 10, 10));
  await rest();

  // C = E[x x'], with the noise of the inputs, and G = E[(y - W0 x) x']: all that the loss needs.
  function moments(from, to) {
    const C = new Float64Array(K * K),
      G = new Float64Array(D * K),
      count = to - from;
    for (let n = from; n < to; n++) {
      for (let j = 0; j < K; j++) {
        const value = x[n][j] / count;
        if (!value) continue;
        for (let i = 0; i < K; i++) C[i * K + j] += x[n][i] * value;
        for (let i = 0; i < D; i++) G[i * K + j] += y[n][i] * value;
      }
    }
    for (let i = 0; i < K; i++) C[i * K + i] += NOISE;
    for (let i = 0; i < D; i++) {
      for (let m = 0; m < K; m++) {
        const w = W0[i * K + m];
        if (w) for (let j = 0; j < K; j++) G[i * K + j] -= w * C[m * K + j];
      }
    }
    return { C, G };
  }
  const training = moments(0, TRAIN);
  await rest();
  const heldOut = moments(TRAIN, N);
  await rest();

  const inner = (u, v) => {
    let sum = 0;
    for (let i = 0; i < u.length; i++) sum += u[i] * v[i];
    return sum;
  };
  function times(C, a, out) {
    for (let i = 0; i < K; i++) {
      let sum = 0;
      for (let j = 0, at = i * K; j < K; j++) sum += a[j] * C[at + j];
      out[i] = sum;
    }
  }

  // ---- B and A, a column and a row for each rank: gradient descent with Adam

  let seed = 3,
    parts = [],
    steps = 0,
    rank = START,
    before = 0,
    frame = 0,
    melting = !still,
    first = true;
  const change = new Float64Array(D * K),
    scratch = new Float64Array(K);
  const random = () => (seed = (48271 * seed) % 2147483647) / 1073741823.5 - 1;
  const slot = (length, value) => ({
    x: Float64Array.from({ length }, value),
    g: new Float64Array(length),
  });
  const fresh = () => ({
    b: slot(D, () => 0),
    a: slot(K, () => random() * 0.12),
    c: new Float64Array(K),
  });

  const speed = () =>
    0.03 * Math.min(1, steps / 12) * 0.5 * (1 + Math.cos((Math.PI * steps) / STEPS)) + 1e-4;
  function descend() {
    // grad B = (B A C - G) A', grad A = B' (B A C - G)
    const { C, G } = training;
    steps++;
    for (const { a, c } of parts) times(C, a.x, c);
    for (const { b, a } of parts) {
      a.g.fill(0);
      for (let i = 0, at = 0; i < D; i++) {
        let sum = 0;
        for (let j = 0; j < K; j++, at++) {
          sum += G[at] * a.x[j];
          a.g[j] -= b.x[i] * G[at];
        }
        b.g[i] = -sum;
      }
      for (const other of parts) {
        const p = inner(a.x, other.c),
          q = inner(b.x, other.b.x);
        for (let i = 0; i < D; i++) b.g[i] += p * other.b.x[i];
        for (let j = 0; j < K; j++) a.g[j] += q * other.c[j];
      }
    }
    for (const { b, a } of parts) for (const each of [b, a]) each.move(each.x, each.g, speed());
  }
  function product() {
    change.fill(0);
    for (const { b, a } of parts)
      for (let i = 0; i < D; i++) for (let j = 0; j < K; j++) change[i * K + j] += b.x[i] * a.x[j];
  }
  function share() {
    // of what the full update gains on threes that were not used for training
    let gained = 2 * inner(change, heldOut.G);
    for (const one of parts) {
      times(heldOut.C, one.a.x, scratch);
      for (const other of parts) gained -= inner(one.b.x, other.b.x) * inner(scratch, other.a.x);
    }
    return gained / layer.full;
  }

  // ---- pictures: an entry is a color as opaque as it is large, so that zero is the paper, light or dark

  const canvases = Object.fromEntries(
    [...root.querySelectorAll("canvas")].map((canvas) => [canvas.dataset.canvas, canvas]),
  );
  const [FROZEN, PLUS, MINUS] = ["base", "plus", "minus"].map(window.colour);
  function paint(name, width, height, value, reach, plus, minus, power = 0.7) {
    const canvas = canvases[name];
    if (canvas.width !== width || canvas.height !== height)
      [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d"),
      image = context.createImageData(width, height);
    for (let i = 0; i < width * height; i++) {
      const entry = value(i);
      image.data.set(entry < 0 ? minus : plus, 4 * i);
      image.data[4 * i + 3] = 255 * Math.min(1, Math.abs(entry) / reach) ** power;
    }
    context.putImageData(image, 0, 0);
  }
  // Digits as ink, enlarged with smooth edges: the weights of a cubic B-spline, new x old.
  const spline = (old, size) =>
    Array.from({ length: size }, (_, at) => {
      const weights = new Float64Array(old),
        place = ((at + 0.5) * old) / size - 0.5;
      for (let k = Math.floor(place) - 1; k < Math.floor(place) + 3; k++) {
        const u = Math.abs(place - k);
        weights[Math.min(old - 1, Math.max(0, k))] +=
          u < 1 ? 2 / 3 - u * u + (u * u * u) / 2 : (2 - u) ** 3 / 6;
      }
      return weights;
    });
  const SIZE = 48,
    CELL = 72,
    TOP = 6,
    enlarged = { 30: spline(10, 24), 54: spline(10, SIZE), wide: spline(12, SIZE) };
  function ink(name, outputs, columns, height, color) {
    const canvas = canvases[name];
    [canvas.width, canvas.height] = [CELL * outputs.length, height];
    const context = canvas.getContext("2d"),
      image = context.createImageData(canvas.width, height),
      line = new Float64Array(columns);
    const down = enlarged[height],
      across = columns === 12 ? enlarged.wide : enlarged[54];
    outputs.forEach((output, n) =>
      down.forEach((rows, top) => {
        for (let j = 0; j < columns; j++) {
          line[j] = 0;
          for (let i = 0; i < 10; i++) line[j] += rows[i] * output[i * columns + j];
        }
        across.forEach((weights, left) => {
          const s = Math.min(1, Math.max(0, (inner(weights, line) - 0.34) / 0.2)),
            at = 4 * ((TOP + top) * canvas.width + n * CELL + left + (CELL - SIZE) / 2);
          image.data.set(color, at);
          image.data[at + 3] = 255 * s * s * (3 - 2 * s);
        });
      }),
    );
    context.putImageData(image, 0, 0);
  }
  const cases = layer.shown.map((n) => TRAIN + n);
  function answers(name, color, update) {
    ink(
      name,
      cases.map((n) =>
        Float64Array.from({ length: D }, (_, i) => {
          let sum = 0;
          for (let j = 0; j < K; j++)
            sum += (W0[i * K + j] + (update ? change[i * K + j] : 0)) * x[n][j];
          return sum;
        }),
      ),
      10,
      54,
      color,
    );
  }

  function draw() {
    product();
    paint("BA", K, D, (i) => change[i], 0.11, PLUS, MINUS);
    if (rank) {
      paint("B", rank, D, (i) => parts[i % rank].b.x[(i / rank) | 0], 0.2, PLUS, MINUS);
      paint("A", K, rank, (i) => parts[(i / K) | 0].a.x[i % K], 0.36, PLUS, MINUS);
    }
    answers("trained", PLUS, true);
    // on threes it was not trained on, a low rank may beat the full update by a little
    const now = Math.min(1, Math.max(0, share()));
    find('[data-bar="gain"]').style.width = `${100 * now}%`;
    show("gain", `${Math.round(100 * now)} %`);
    stage.dataset.share = now.toFixed(4);
  }

  function take(chosen) {
    rank = chosen;
    while (parts.length > rank) parts.pop();
    while (parts.length < rank) parts.push(fresh());
    for (const { b, a } of parts)
      for (const each of [b, a]) each.move = window.loraAdam(each.x.length, ADAM);
    const count = rank * (D + K),
      cost = (100 * count) / (D * K),
      slider = find("#front-rank");
    stage.style.setProperty("--rank", rank);
    stage.classList.toggle("front-off", !rank);
    delete stage.dataset.trained;
    find('[data-bar="cost"]').style.width = `${cost}%`;
    show("rank", rank);
    show("cost", `${Math.round(cost)} %`);
    show("of", `${whole(count)} of 12,000`);
    show("llama", `${llama[rank].toFixed(2)} %`);
    slider.style.setProperty("--p", (100 * rank) / MOST);
    slider.setAttribute("aria-valuetext", `rank ${rank}, ${whole(count)} parameters`);
    steps = 0;
    before = performance.now();
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(tick);
  }

  // by the clock: done in SECONDS wherever the machine can, and never more than 10 ms in a frame
  function tick(now) {
    const passed = Math.max(0, ((now - before) / 1000 - (first ? 0.4 : 0)) / SECONDS);
    const goal = still ? STEPS : Math.min(STEPS, Math.ceil(STEPS * passed ** 2)),
      from = performance.now();
    while (steps < goal && (still || performance.now() - from < 10)) descend();
    draw();
    const count = rank * (D + K),
      left = melting ? Math.max(0, 1 - (now - before) / 700) ** 2 : 0;
    show("count", whole(Math.round(count + left * (D * K - count))));
    if (!left) melting = false;
    if (steps < STEPS) frame = requestAnimationFrame(tick);
    else {
      stage.dataset.trained = rank;
      const gain = find('[data-show="gain"]').textContent;
      show(
        "status",
        `Rank ${rank}: ${whole(count)} parameters, ${gain} of what the full update learns.`,
      );
    }
  }

  paint("W0", K, D, (i) => W0[i], 0.2, FROZEN, FROZEN, 0.6);
  ink(
    "in",
    cases.map((n) => x[n]),
    12,
    30,
    FROZEN,
  );
  await rest();
  answers("frozen", FROZEN, false);
  await rest();
  find("#front-rank").disabled = false;
  find("#front-rank").value = START;
  find("#front-rank").addEventListener("input", ({ target }) => {
    first = melting = false;
    take(Number(target.value));
  });
  find('[data-act="again"]').addEventListener("click", () => {
    parts = [];
    take(rank);
  });
  if (!still) {
    // 12,000 melts to 1,760 while the first steps run
    stage.style.setProperty("--rank", MOST);
    find('[data-bar="cost"]').style.width = "100%";
    stage.getBoundingClientRect();
    stage.classList.add("front-moves");
  }
  take(START);

  // ---- a language model with and without its adapter

  // lines end at verses and paragraphs only
  const flowing = (text) => text.replace(/(?<!\n)\n(?![\n\d])/g, " ");
  function speak(i) {
    const { rank: cut, loss, text } = voice[i];
    show("tuned", flowing(prompt + text));
    show("tuned-loss", loss.toFixed(2));
    show("tuned-name", cut ? `with the adapter, rank ${cut}` : "no adapter yet");
    [...part("voices").children].forEach((button, at) =>
      button.setAttribute("aria-pressed", String(at === i)),
    );
  }
  voice.forEach(({ rank: cut, loss }, i) => {
    const button = Object.assign(document.createElement("button"), {
      type: "button",
      textContent: `${cut ? `rank ${cut}` : "no adapter"}: ${loss.toFixed(2)}`,
    });
    button.addEventListener("click", () => speak(i));
    part("voices").append(button);
  });
  show("base", flowing(prompt + voice[0].text));
  show("base-loss", voice[0].loss.toFixed(2));
  speak(voice.length - 1);

  // ---- a GPU and a model

  const choices = Object.fromEntries(
    [...root.querySelectorAll("[data-choice]")].map((select) => [select.dataset.choice, select]),
  );
  const offer = (select, names, chosen) =>
    select.append(...names.map((name) => new Option(name, name, name === chosen, name === chosen)));
  offer(choices.model, Object.keys(fit.memory), "llama-3.1-8b");
  offer(choices.gpu, Object.keys(fit.gpus), "RTX 4090");

  function answer() {
    const model = choices.model.value,
      gpu = choices.gpu.value,
      [room, sold] = fit.gpus[gpu],
      needs = fit.memory[model];
    const scale = Math.max(1.6 * room, Math.min(...Object.values(needs))),
      gb = (size) => `${(size / 2 ** 30).toFixed(1)} GB`;
    part("memory").replaceChildren(
      ...Object.entries(needs).map(([method, need]) => {
        const [row, name, bar, fill, line, said] = ["div", "span", "div", "span", "i", "b"].map(
          (tag) => document.createElement(tag),
        );
        row.className = "front-method";
        bar.className = `front-bar${need > room ? " over" : ""}`;
        bar.setAttribute("aria-hidden", "true");
        fill.style.width = `${Math.min(100, (100 * need) / scale)}%`;
        line.style.left = `${(100 * room) / scale}%`;
        bar.append(fill, line);
        name.textContent = method;
        said.textContent = `${gb(need)}: ${need <= room ? "fits" : "does not fit"}`;
        row.append(name, bar, said);
        return row;
      }),
      Object.assign(document.createElement("p"), {
        className: "front-small",
        textContent: `The line: ${gb(room)} of ${sold} GB are left for training.`,
      }),
    );
    const asked = {
      model,
      rank: 16,
      targets: "all-linear",
      method: "LoRA",
      gpu,
      max_length: fit.max_length,
    };
    part("more").href = `use/fit.html#${new URLSearchParams(asked)}`;
  }
  for (const select of Object.values(choices)) select.addEventListener("input", answer);
  answer();
})();
