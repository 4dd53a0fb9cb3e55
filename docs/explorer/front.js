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
  const { trainer, times, transposed, minus } = window.loraTraining;
  const { make, press, whole, still, flowing, bytes, pixels, paint: picture } = window.loraPrograms;
  const { find, show } = window.loraPrograms.parts(root);
  const part = (name) => find(`[data-part="${name}"]`);
  const stage = part("stage");
  // Between parts of what is computed at the start, so that no task keeps a phone from answering a finger
  const rest = () => new Promise((goOn) => setTimeout(goOn));
  const levels = new Int8Array(bytes(layer.W0).buffer);
  const W0 = Array.from({ length: D }, (_, i) =>
    Array.from({ length: K }, (_, j) => levels[i * K + j] * layer.step),
  );

  // ---- the task: the upper half of a digit of 8 x 8 goes in as 10 x 12, the whole comes out as 10 x 10

  const shades = bytes(layer.digits),
    N = shades.length / 32,
    TRAIN = N - layer.heldOut;
  // How a row or column of `size` pixels is made of one of `old`: new x old, with weights by distance
  const enlarging = (old, size, weight) =>
    Array.from({ length: size }, (_, at) => {
      const weights = Array(old).fill(0),
        place = ((at + 0.5) * old) / size - 0.5;
      for (let k = Math.floor(place) - 1; k < Math.floor(place) + 3; k++)
        weights[Math.min(old - 1, Math.max(0, k))] += weight(Math.abs(place - k));
      return weights;
    });
  // Rows of pixels, larger: all that is drawn or learned
  const enlarged = (rows, down, across) => times(down, times(across, rows));
  const linear = (u) => Math.max(0, 1 - u);
  function resized(n, rows, height, width) {
    const pixels = Array.from({ length: rows }, (_, i) =>
      Array.from({ length: 8 }, (_, j) => {
        const pair = shades[n * 32 + i * 4 + (j >> 1)];
        return (j & 1 ? pair & 15 : pair >> 4) / 15;
      }),
    );
    return enlarged(pixels, enlarging(rows, height, linear), enlarging(8, width, linear)).flat();
  }
  const x = Array.from({ length: N }, (_, n) => resized(n, 4, 10, 12)),
    y = Array.from({ length: N }, (_, n) => resized(n, 8, 10, 10));
  await rest();

  // C = E[x x'], with the noise of the inputs, and G = E[(y - W0 x) x']: all that the loss needs.
  function moments(from, to) {
    const [X, Y] = [x, y].map((rows) => transposed(rows.slice(from, to)));
    const mean = (M, N) => times(M, N).map((row) => row.map((sum) => sum / (to - from)));
    const C = mean(X, X);
    for (let i = 0; i < K; i++) C[i][i] += NOISE;
    return { C, G: minus(mean(Y, X), times(W0, C)), power: 0 };
  }
  const training = moments(0, TRAIN);
  await rest();
  const heldOut = moments(TRAIN, N);
  await rest();

  // ---- B and A at a rank: gradient descent with Adam

  let seed = 3,
    run,
    rank = START,
    before = 0,
    frame = 0,
    melting = !still,
    first = true;
  const random = () => (seed = (48271 * seed) % 2147483647) / 1073741823.5 - 1;
  // which begins with what another rank has learned
  function begun() {
    const { A = [], B = W0.map(() => []) } = run?.factors ?? {};
    const grown = (row, length, entry) => Array.from({ length }, (_, i) => row[i] ?? entry());
    const start = {
      A: grown(A, rank, () => grown([], K, () => random() * 0.12)),
      B: B.map((row) => grown(row, rank, () => 0)),
    };
    return trainer(training, start, { alpha: rank, ...ADAM });
  }

  const speed = (steps) =>
    0.03 * Math.min(1, steps / 12) * 0.5 * (1 + Math.cos((Math.PI * steps) / STEPS)) + 1e-4;

  // ---- pictures: an entry is a color as opaque as it is large, so that zero is the paper, light or dark

  const canvases = Object.fromEntries(
    [...root.querySelectorAll("canvas")].map((canvas) => [canvas.dataset.canvas, canvas]),
  );
  const [FROZEN, PLUS, MINUS] = ["base", "plus", "minus"].map(window.colour);
  function paint(name, M, reach, plus, minus, power = 0.7) {
    const entries = M.flat();
    picture(canvases[name], M[0].length, M.length, (i) => [
      ...(entries[i] < 0 ? minus : plus),
      255 * Math.min(1, Math.abs(entries[i]) / reach) ** power,
    ]);
  }
  // Digits as ink, enlarged with smooth edges by a cubic B-spline
  const spline = (u) => (u < 1 ? 2 / 3 - u * u + (u * u * u) / 2 : Math.max(0, 2 - u) ** 3 / 6);
  const SIZE = 48,
    CELL = 72,
    TOP = 6;
  function ink(name, outputs, columns, height, color) {
    const canvas = canvases[name],
      context = canvas.getContext("2d"),
      down = enlarging(10, height - TOP, spline),
      across = enlarging(columns, SIZE, spline);
    [canvas.width, canvas.height] = [CELL * outputs.length, height];
    outputs.forEach((output, n) => {
      const rows = Array.from({ length: 10 }, (_, i) =>
          output.slice(i * columns, (i + 1) * columns),
        ),
        shades = enlarged(rows, down, across).flat();
      const image = pixels(SIZE, height - TOP, (i) => {
        const s = Math.min(1, Math.max(0, (shades[i] - 0.34) / 0.2));
        return [...color, 255 * s * s * (3 - 2 * s)];
      });
      context.putImageData(image, n * CELL + (CELL - SIZE) / 2, TOP);
    });
  }
  const cases = layer.shown.map((n) => x[TRAIN + n]);
  const answers = (name, color, W) => ink(name, times(cases, W), 10, 54, color);

  function draw() {
    const change = run ? run.update() : W0.map((row) => row.map(() => 0));
    paint("BA", change, 0.11, PLUS, MINUS);
    if (run) {
      paint("B", run.factors.B, 0.2, PLUS, MINUS);
      paint("A", run.factors.A, 0.36, PLUS, MINUS);
    }
    const tuned = W0.map((row, i) => row.map((entry, j) => entry + change[i][j]));
    answers("trained", PLUS, tuned);
    // of what the full update gains on threes that were not used for training; a low rank may gain a little more
    const share = run ? (-D * run.loss(heldOut)) / layer.full : 0;
    const now = Math.min(1, Math.max(0, share));
    find('[data-bar="gain"]').style.width = `${100 * now}%`;
    show("gain", `${Math.round(100 * now)} %`);
    stage.dataset.share = now.toFixed(4);
  }

  function take(chosen) {
    rank = chosen;
    run = rank ? begun() : undefined;
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
    slider.ariaValueText = `rank ${rank}, ${whole(count)} parameters`;
    before = performance.now();
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(tick);
  }

  // by the clock: done in SECONDS wherever the machine can, and never more than 10 ms in a frame
  function tick(now) {
    const passed = Math.max(0, ((now - before) / 1000 - (first ? 0.4 : 0)) / SECONDS);
    const goal = still ? STEPS : Math.min(STEPS, Math.ceil(STEPS * passed ** 2)),
      from = performance.now();
    while (run?.steps < goal && (still || performance.now() - from < 10))
      run.step(speed(run.steps + 1));
    draw();
    const count = rank * (D + K),
      left = melting ? Math.max(0, 1 - (now - before) / 700) ** 2 : 0;
    show("count", whole(Math.round(count + left * (D * K - count))));
    if (!left) melting = false;
    if (run?.steps < STEPS) frame = requestAnimationFrame(tick);
    else {
      stage.dataset.trained = rank;
      const gain = find('[data-show="gain"]').textContent;
      show(
        "status",
        `Rank ${rank}: ${whole(count)} parameters, ${gain} of what the full update learns.`,
      );
    }
  }

  paint("W0", W0, 0.2, FROZEN, FROZEN, 0.6);
  ink("in", cases, 12, 30, FROZEN);
  await rest();
  answers("frozen", FROZEN, W0);
  await rest();
  find("#front-rank").disabled = false;
  find("#front-rank").value = START;
  find("#front-rank").addEventListener("input", ({ target }) => {
    first = melting = false;
    take(Number(target.value));
  });
  find('[data-act="again"]').addEventListener("click", () => {
    run = undefined;
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

  function speak(i) {
    const { rank: cut, loss, text } = voice[i];
    show("tuned", flowing(prompt + text));
    show("tuned-loss", loss.toFixed(2));
    show("tuned-name", cut ? `with the adapter, rank ${cut}` : "no adapter yet");
    [...part("voices").children].forEach((button, at) => (button.ariaPressed = String(at === i)));
  }
  voice.forEach(({ rank: cut, loss }, i) => {
    const name = `${cut ? `rank ${cut}` : "no adapter"}: ${loss.toFixed(2)}`;
    part("voices").append(press(name, () => speak(i)));
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
        const row = make("div", "", "front-method"),
          bar = make("div", "", `front-bar${need > room ? " over" : ""}`),
          [fill, line] = [make("span"), make("i")];
        bar.ariaHidden = "true";
        fill.style.width = `${Math.min(100, (100 * need) / scale)}%`;
        line.style.left = `${(100 * room) / scale}%`;
        bar.append(fill, line);
        const said = `${gb(need)}: ${need <= room ? "fits" : "does not fit"}`;
        row.append(make("span", method), bar, make("b", said));
        return row;
      }),
      make("p", `The line: ${gb(room)} of ${sold} GB are left for training.`, "front-small"),
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
