// The rank explorer: a matrix cut to the rank under the reader's hand. Numbers of the first two come from the
// package; those of the reader's own picture are found here.
(() => {
  "use strict";

  const root = document.getElementById("rank-explorer");
  if (!root || !window.rankExplorer) return;

  const { dot } = window.loraSvd;
  const {
    address,
    make,
    set,
    whole,
    remember,
    bytes,
    diverging,
    paint: picture,
  } = window.loraPrograms;
  const { find, show } = window.loraPrograms.parts(root);
  const canvas = (name) => find(`[data-picture=${name}]`);
  const slider = find("#explorer-slider");
  const curve = find("svg");
  const file = find(".explorer-file");
  const refused = find(".explorer-error");
  const alone = find("[name=alone]");
  const WIDTH = 320,
    TOP = 26,
    BOTTOM = 112; // of the curve
  const LARGEST = 160; // pixels of a side of the reader's own picture
  const PATCHES = [46, 32]; // pixels: two by three patches, with gaps between them
  const STRENGTHS = 12; // layers whose strength can be changed
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const norm = (x) => Math.sqrt(dot(x, x));

  const subjects = Object.fromEntries(
    window.rankExplorer.map((subject) => [
      subject.name,
      ready({
        ...subject,
        left: decode(subject.left, subject.d),
        right: decode(subject.right, subject.k),
        rank: subject.start,
        whole: subject.whole && decode(subject.whole, subject.k), // only the rows that are drawn
      }),
    ]),
  );
  let subject = subjects.picture;
  let strengths = new Array(STRENGTHS).fill(1);
  let announce,
    opened = 0;

  // Rows of 16-bit integers, and a scale for each.
  function decode({ scales, numbers }, length) {
    const levels = new Int16Array(bytes(numbers).buffer);
    return scales.map((scale, row) =>
      Float32Array.from({ length }, (_, i) => scale * levels[row * length + i]),
    );
  }

  function ready(subject) {
    return {
      ...subject,
      values: subject.left.map((column, r) => norm(column) * norm(subject.right[r])),
    };
  }

  const strength = (r) => (subject.name === "update" ? 1 : (strengths[r] ?? 1));

  // B A: the first r columns times the first r rows, or the last of these products alone.
  function product({ d, k, left, right }, rank, first = 0) {
    const M = new Float32Array(d * k);
    for (let r = first; r < rank; r += 1) {
      for (let i = 0; i < d; i += 1) {
        const weight = strength(r) * left[r][i],
          row = right[r],
          at = i * k;
        for (let j = 0; j < k; j += 1) M[at + j] += weight * row[j];
      }
    }
    return M;
  }

  function complete() {
    if (!subject.whole) return product(subject, subject.left.length);
    const M = new Float32Array(subject.d * subject.k);
    subject.whole.forEach((row, n) => M.set(row, subject.outputs[n] * subject.k));
    return M;
  }

  const grey = (share) => Array(3).fill(255 * share);

  function paint(target, M, [low, high], signed = subject.name === "update") {
    const { d, k, name } = subject,
      tint = diverging(),
      shade = (value) => {
        const share = (value - low) / (high - low);
        return signed ? tint(2 * share - 1) : grey(share);
      };
    target.classList.toggle("pixels", name === "update");
    if (name !== "update") return picture(target, k, d, (i) => shade(M[i]));
    return picture(
      target,
      ...PATCHES,
      patches((row, column) => shade(M[row * k + column])),
    );
  }

  // A row of the update as one meets it in the picture: the weights of 10 x 12 pixels, and at their right,
  // dark on grey, the one of the next 10 x 10 pixels that they change. Rows of the matrix next to each other
  // would be a barcode.
  function patches(shade) {
    const [ink, line] = ["ink", "line"].map(window.colour);
    return (pixel) => {
      const [x, y] = [pixel % PATCHES[0], Math.floor(pixel / PATCHES[0])],
        [i, j] = [y % 11, x % 24];
      if (i > 9 || j > 21) return [0, 0, 0, 0];
      const output = subject.outputs[2 * Math.floor(y / 11) + Math.floor(x / 24)];
      if (j < 12) return shade(output, 12 * i + j);
      return 10 * i + j - 12 === output ? ink : line;
    };
  }

  function draw() {
    const { limits, rank } = subject;
    if (!alone.checked || !rank) return paint(canvas("cut"), product(subject, rank), limits);
    const layer = product(subject, rank, rank - 1),
      largest = layer.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
    return paint(canvas("cut"), layer, [-largest, largest], true); // a layer has both signs
  }

  // The relative error: what is left out, and what layers of another strength miss.
  function errorNow() {
    const { errors, rank, values } = subject;
    if (subject.name === "update") return errors[rank];
    const total = values.reduce((sum, s) => sum + s * s, 0);
    const missed = values
      .slice(0, rank)
      .reduce((sum, s, r) => sum + ((strength(r) - 1) * s) ** 2, 0);
    return Math.sqrt(errors[rank] ** 2 + missed / (total || 1));
  }

  // A picture of one row has one rank, and a black one no error: neither may divide by 0.
  const across = (rank) =>
    (WIDTH * (rank - subject.lowest)) / (subject.ranks - subject.lowest || 1);

  function height(error) {
    const shown = subject.errors.slice(subject.lowest);
    const bottom = subject.full_error ?? 0;
    return BOTTOM - (BOTTOM - TOP) * Math.min(1.05, (error - bottom) / (shown[0] - bottom || 1));
  }

  function drawCurve() {
    const { errors, lowest, ranks, breakEven } = subject;
    const points = errors
      .slice(lowest)
      .map((error, i) => `${across(i + lowest).toFixed(1)},${height(error).toFixed(1)}`);
    set(find("svg .curve"), { d: `M${points.join("L")}` });
    const edge = Math.min(WIDTH, across(breakEven));
    set(find("svg .beyond"), { x: edge, width: WIDTH - edge });
    set(find("svg .break"), { x: edge }, edge < WIDTH ? `break-even ${breakEven}` : "");
    find("svg .low").textContent = lowest;
    find("svg .high").textContent = ranks;
    show(
      "curve-name",
      subject.name === "update"
        ? "error on new patches, down to that of the full update"
        : "relative error",
    );
  }

  function mark(error) {
    const x = across(subject.rank);
    set(find("svg .here"), { x1: x, x2: x });
    set(find("svg .dot"), { cx: x, cy: height(error) });
  }

  function verdict(error) {
    const { counts, rank, full, errors, full_error: best } = subject;
    const share = counts[rank] / full;
    const cost =
      counts[rank] < full
        ? `${percent(share)} of the numbers`
        : `More numbers than the matrix itself`;
    if (best === undefined)
      return `${cost}, ${percent(Math.max(0, 1 - error ** 2))} of the energy.`;
    return `${cost}, ${percent((errors[0] - errors[rank]) / (errors[0] - best))} of the gain.`;
  }

  const NAMES = {
    picture: "The photograph",
    update: "The update of the model",
    own: "Your picture",
  };

  function update() {
    const { counts, full, breakEven, rank, name } = subject;
    const now = errorNow();
    const error = name === "update" ? now.toFixed(4) : percent(now);
    show("rank", rank);
    show("layer", Math.max(1, rank));
    show("cut-name", alone.checked && rank ? `term ${rank} alone` : `rank ${rank}`);
    show("count", whole(counts[rank]));
    show("full", whole(full));
    show("error", error);
    show("break-even", breakEven);
    show("verdict", verdict(now));
    slider.ariaValueText = `rank ${rank}`;
    canvas("cut").ariaLabel = `${NAMES[name]} at rank ${rank}, error ${error}`;
    draw();
    mark(now);
    clearTimeout(announce); // a screen reader hears where the slider came to rest, not every step
    announce = setTimeout(() => {
      show("status", `${whole(counts[rank])} parameters, error ${error}. ${verdict(now)}`);
      const { start } = subject; // the reader's own picture cannot be in an address
      remember(root, { r: rank, of: name === "update" && name }, { r: start, of: false });
    }, 500);
  }

  function choose(name) {
    subject = subjects[name];
    for (const text of root.querySelectorAll("[data-about]"))
      text.hidden = text.dataset.about !== name;
    show("error-name", name === "update" ? "error on new patches" : "relative error");
    find(".explorer-strengths").hidden = name === "update"; // its error is not that of weights
    find("[name=reset]").hidden = name === "update";
    slider.min = subject.lowest;
    slider.max = subject.ranks;
    slider.value = subject.rank;
    drawCurve();
    update();
    const { width, height } = canvas("cut"); // both pictures change their size at once
    Object.assign(canvas("whole"), { width, height });
    setTimeout(() => paint(canvas("whole"), complete(), subject.limits)); // a task of its own
  }

  function moveTo(rank) {
    subject.rank = Math.min(subject.ranks, Math.max(subject.lowest, Math.round(rank)));
    slider.value = subject.rank;
    update();
  }

  // A finger on the curve moves the rank as one on the slider does.
  function follow(event) {
    const box = curve.getBoundingClientRect();
    moveTo(
      subject.lowest + ((event.clientX - box.left) / box.width) * (subject.ranks - subject.lowest),
    );
  }

  // The reader's own picture

  async function open(picture) {
    const turn = ++opened;
    refused.hidden = true;
    show("verdict", "Looking for its singular values …");
    try {
      const found = await decomposed(picture);
      if (turn !== opened) return; // another was opened meanwhile
      subjects.own = found;
    } catch (error) {
      if (turn === opened) refuse(error);
      return;
    }
    if (find("[name=subject]:checked").value === "own") choose("own");
  }

  // What was shown before stays, and says so; the same file can be chosen again once it is mended.
  function refuse(error) {
    refused.textContent = error.message;
    refused.hidden = false;
    file.value = "";
    find(`[name=subject][value=${subject.name}]`).checked = true;
    file.hidden = subject.name !== "own";
    update();
  }

  async function decomposed(picture) {
    const bitmap = await createImageBitmap(picture).catch(() => {
      const advice = "choose a PNG, JPEG or WebP file";
      throw new Error(`${picture.name} is not a picture that can be opened here: ${advice}.`);
    });
    const scale = Math.min(1, LARGEST / Math.max(bitmap.width, bitmap.height));
    const [k, d] = [bitmap.width, bitmap.height].map((n) => Math.max(1, Math.round(n * scale)));
    const context = new OffscreenCanvas(k, d).getContext("2d");
    context.drawImage(bitmap, 0, 0, k, d);
    const { data } = context.getImageData(0, 0, k, d);
    const columns = Array.from({ length: k }, (_, j) =>
      Float64Array.from({ length: d }, (_, i) => {
        const at = 4 * (i * k + j);
        return (0.2126 * data[at] + 0.7152 * data[at + 1] + 0.0722 * data[at + 2]) / 255;
      }),
    );
    const worker = new Worker(address("_static/svd.js"));
    worker.postMessage(columns);
    const { U, s, V } = await new Promise((resolve, reject) => {
      worker.addEventListener("message", ({ data }) => resolve(data));
      worker.addEventListener("error", () =>
        reject(
          new Error(
            `The singular values of ${picture.name} could not be found: load this page again.`,
          ),
        ),
      );
    }).finally(() => worker.terminate());
    return own(U, s, V, d, k);
  }

  function own(U, s, V, d, k) {
    const ranks = Math.min(d, k);
    const left = s.slice(0, ranks).map((value, r) => U[r].map((x) => x * value));
    const tails = new Array(ranks + 1).fill(0);
    for (let r = ranks - 1; r >= 0; r -= 1) tails[r] = tails[r + 1] + s[r] ** 2;
    const start = Math.min(ranks, 16);
    return ready({
      name: "own",
      d,
      k,
      ranks,
      left,
      right: V.slice(0, ranks),
      limits: [0, 1],
      lowest: 1,
      start,
      rank: start,
      full: d * k,
      errors: tails.map((tail) => Math.sqrt(tail / (tails[0] || 1))),
      counts: tails.map((_, r) => r * (d + k)),
      breakEven: Math.floor((d * k - 1) / (d + k)),
    });
  }

  const bars = Array.from({ length: STRENGTHS }, (_, r) =>
    make("input", "", "", {
      type: "range",
      min: 0,
      max: 200,
      step: 5,
      value: 100,
      ariaLabel: `Strength of term ${r + 1}, in percent`,
    }),
  );
  find(".explorer-strengths").append(...bars);
  bars.forEach((bar, r) =>
    bar.addEventListener("input", () => {
      strengths[r] = Number(bar.value) / 100;
      update();
    }),
  );
  find("[name=reset]").addEventListener("click", () => {
    strengths.fill(1);
    for (const bar of bars) bar.value = 100;
    update();
  });

  alone.addEventListener("change", update);
  slider.addEventListener("input", () => moveTo(Number(slider.value)));
  file.addEventListener("change", () => {
    if (file.files[0]) open(file.files[0]);
  });
  for (const radio of root.querySelectorAll("input[type=radio]")) {
    radio.addEventListener("change", () => {
      file.hidden = radio.value !== "own";
      refused.hidden = true;
      if (radio.value !== "own" || subjects.own) choose(radio.value);
      else file.click();
    });
  }
  curve.addEventListener("pointerdown", (event) => {
    curve.setPointerCapture(event.pointerId);
    follow(event);
  });
  curve.addEventListener("pointermove", (event) => {
    if (event.buttons) follow(event);
  });

  const asked = new URLSearchParams(location.search);
  const first = asked.get("of") === "update" ? "update" : "picture";
  const rank = Number(asked.get("r"));
  if (rank >= subjects[first].lowest && rank <= subjects[first].ranks && asked.has("r"))
    subjects[first].rank = rank;
  find(`[value=${first}]`).checked = true;
  choose(first);
})();
