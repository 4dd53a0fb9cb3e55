// The rank explorer: a matrix cut to the rank under the reader's hand. Its numbers come from the package.
(() => {
  "use strict";

  const root = document.getElementById("rank-explorer");
  if (!root || !window.rankExplorer) return;

  const canvas = root.querySelector("canvas");
  const slider = root.querySelector("input[type=range]");
  const curve = root.querySelector("svg");
  const WIDTH = 320, TOP = 8, BOTTOM = 104; // of the curve
  const whole = (n) => n.toLocaleString("en-US");
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const show = (name, text) => { root.querySelector(`[data-show="${name}"]`).textContent = text; };

  const subjects = Object.fromEntries(window.rankExplorer.map((subject) => [
    subject.name,
    { ...subject, left: decode(subject.left, subject.d), right: decode(subject.right, subject.k), rank: subject.start },
  ]));
  let subject = subjects.picture;
  let announce;

  // Rows of 16-bit integers, little-endian whatever the machine, and a scale for each.
  function decode({ scales, numbers }, length) {
    const bytes = Uint8Array.from(atob(numbers), (character) => character.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    return scales.map((scale, row) =>
      Float32Array.from({ length }, (_, i) => scale * view.getInt16(2 * (row * length + i), true)));
  }

  // B A: the first r columns times the first r rows.
  function product({ d, k, left, right }, rank) {
    const M = new Float32Array(d * k);
    for (let r = 0; r < rank; r += 1) {
      for (let i = 0; i < d; i += 1) {
        const weight = left[r][i];
        for (let j = 0; j < k; j += 1) M[i * k + j] += weight * right[r][j];
      }
    }
    return M;
  }

  function grey(share) {
    const level = Math.round(255 * Math.min(1, Math.max(0, share)));
    return [level, level, level];
  }

  // Blue through white to orange, the package's own two colours.
  function diverging(share) {
    const x = Math.min(1, Math.max(-1, 2 * share - 1));
    const end = x < 0 ? [0, 114, 178] : [213, 94, 0];
    return end.map((c) => Math.round(255 + Math.abs(x) * (c - 255)));
  }

  function draw() {
    const { d, k, limits: [low, high], name, rank } = subject;
    const M = product(subject, rank);
    const colour = name === "update" ? diverging : grey;
    const image = new ImageData(k, d);
    for (let i = 0; i < M.length; i += 1) image.data.set([...colour((M[i] - low) / (high - low)), 255], 4 * i);
    canvas.width = k;
    canvas.height = d;
    canvas.getContext("2d").putImageData(image, 0, 0);
    canvas.classList.toggle("pixels", name === "update");
  }

  const across = (rank) => WIDTH * (rank - subject.lowest) / (subject.ranks - subject.lowest);

  function height(error) {
    const shown = subject.errors.slice(subject.lowest);
    const bottom = subject.full_error ?? 0;
    return BOTTOM - (BOTTOM - TOP) * (error - bottom) / (shown[0] - bottom);
  }

  function drawCurve() {
    const points = subject.errors.slice(subject.lowest).map((error, i) =>
      `${across(i + subject.lowest).toFixed(1)},${height(error).toFixed(1)}`);
    curve.querySelector(".curve").setAttribute("d", `M${points.join("L")}`);
    const edge = across(subject.breakEven);
    const beyond = curve.querySelector(".beyond");
    beyond.setAttribute("x", edge);
    beyond.setAttribute("width", WIDTH - edge);
    const label = curve.querySelector(".break");
    label.setAttribute("x", edge);
    label.setAttribute("text-anchor", "end");
    label.textContent = `break-even ${subject.breakEven}`;
  }

  function mark() {
    const x = across(subject.rank);
    const here = curve.querySelector(".here");
    here.setAttribute("x1", x);
    here.setAttribute("x2", x);
    const dot = curve.querySelector(".dot");
    dot.setAttribute("cx", x);
    dot.setAttribute("cy", height(subject.errors[subject.rank]));
  }

  function verdict() {
    const { counts, rank, full, errors, full_error: best } = subject;
    const share = counts[rank] / full;
    const cost = counts[rank] < full
      ? `${percent(share)} of the numbers`
      : `More numbers than the matrix itself`;
    if (best === undefined) return `${cost}, ${percent(1 - errors[rank] ** 2)} of the energy.`;
    return `${cost}, ${percent((errors[0] - errors[rank]) / (errors[0] - best))} of the gain.`;
  }

  function update() {
    const { counts, full, errors, breakEven, rank, name } = subject;
    const error = name === "update" ? errors[rank].toFixed(4) : percent(errors[rank]);
    show("rank", rank);
    show("count", whole(counts[rank]));
    show("full", whole(full));
    show("error", error);
    show("break-even", breakEven);
    show("verdict", verdict());
    slider.setAttribute("aria-valuetext", `rank ${rank}`);
    canvas.setAttribute("aria-label",
      `${name === "update" ? "The update of the model" : "The photograph"} at rank ${rank}, error ${error}`);
    draw();
    mark();
    clearTimeout(announce); // a screen reader hears where the slider came to rest, not every step
    announce = setTimeout(() => show("status", `${whole(counts[rank])} numbers, error ${error}. ${verdict()}`), 500);
  }

  function choose(name) {
    subject = subjects[name];
    for (const text of root.querySelectorAll("[data-about]")) text.hidden = text.dataset.about !== name;
    show("error-name", name === "update" ? "error on new patches" : "relative error");
    slider.min = subject.lowest;
    slider.max = subject.ranks;
    slider.value = subject.rank;
    drawCurve();
    update();
  }

  function moveTo(rank) {
    subject.rank = Math.min(subject.ranks, Math.max(subject.lowest, Math.round(rank)));
    slider.value = subject.rank;
    update();
  }

  // A finger on the curve moves the rank as one on the slider does.
  function follow(event) {
    const box = curve.getBoundingClientRect();
    moveTo(subject.lowest + (event.clientX - box.left) / box.width * (subject.ranks - subject.lowest));
  }

  slider.addEventListener("input", () => moveTo(Number(slider.value)));
  for (const radio of root.querySelectorAll("input[type=radio]")) {
    radio.addEventListener("change", () => choose(radio.value));
  }
  curve.addEventListener("pointerdown", (event) => {
    curve.setPointerCapture(event.pointerId);
    follow(event);
  });
  curve.addEventListener("pointermove", (event) => { if (event.buttons) follow(event); });
  choose("picture");
})();
