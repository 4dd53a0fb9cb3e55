// Live training of B A on a small linear map, down to the line of the optimum. Its choices are kept in the
// address.
(() => {
  "use strict";

  const form = document.getElementById("training");
  if (!form || !window.loraTask) return;

  const task = window.loraTask;
  const { trainer, zeros, times, transposed } = window.loraTraining;
  const { set, svg, whole, still, remember, diverging, paint: picture } = window.loraPrograms;
  const { find, part, show } = window.loraPrograms.parts(form);
  const [d, k] = [task.G.length, task.C.length];
  // steps in a frame: slow enough to watch, unless nothing is to move
  const STEPS = 400,
    FRAME = still ? 25 : 2;
  const LEFT = 36,
    RIGHT = 320,
    TOP = 16,
    BOTTOM = 164; // of the plot; the names of curves stand to the right
  const KEPT = 5,
    ENOUGH = 20; // curves that are kept, and the steps that make one worth it
  const RATES = [0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.2, 0.3];
  const USUAL = { rank: 3, alpha: 8, rate: 0.02, start: "B" };
  const STARTS = { B: "B = 0", both: "both 0", none: "both random" };
  const chosen = () => ({
    rank: Number(part("rank").value),
    alpha: 2 ** Number(part("alpha").value),
    rate: RATES[Number(part("rate").value)],
    start: part("start").value,
  });
  const same = (one, other) => Object.keys(one).every((name) => one[name] === other[name]);

  let settings,
    run,
    losses = [],
    old = [],
    frame = 0,
    seen = false;

  // ---- matrices

  const best = (rank) =>
    times(
      task.left.map((row) => row.slice(0, rank)),
      transposed(task.right.slice(0, rank)),
    );
  const greatest = (M) => Math.max(...M.flat().map(Math.abs));
  const largest = greatest(best(8));

  function paint(name, M, limit) {
    const values = M.flat(),
      tint = diverging();
    picture(find(`[data-canvas="${name}"]`), M[0].length, M.length, (i) => tint(values[i] / limit));
  }

  function pictures() {
    const { A, B } = run.factors;
    // each factor against its own largest number
    paint("A", A, Math.max(0.1, greatest(A)));
    paint("B", B, Math.max(0.1, greatest(B)));
    paint("BA", run.update(), largest);
  }

  // ---- the loss

  const lowest = Math.log(task.best.at(-1) * 0.65),
    highest = Math.log(task.best[0] * 1.6);
  const across = (step) => LEFT + ((RIGHT - LEFT) * step) / STEPS;
  const down = (loss) => {
    const share = (highest - Math.log(Math.max(loss, 1e-12))) / (highest - lowest);
    return TOP + (BOTTOM - TOP) * Math.min(1.02, Math.max(-0.02, share));
  };
  const path = (values) =>
    `M${values
      .map((value, step) => [across(step), down(Number.isFinite(value) ? value : 1e9)])
      .map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`)
      .join("L")}`;

  function axis() {
    const group = find(".axis");
    for (const loss of [0.1, 0.2, 0.5, 1]) {
      group.append(svg("line", { x1: LEFT, x2: RIGHT, y1: down(loss), y2: down(loss) }));
      group.append(svg("text", { x: LEFT - 5, y: down(loss) + 4, "text-anchor": "end" }, loss));
    }
    for (const step of [0, 200, 400])
      group.append(svg("text", { x: across(step), y: BOTTOM + 15, "text-anchor": "middle" }, step));
    group.append(svg("text", { x: across(200), y: BOTTOM + 30, "text-anchor": "middle" }, "steps"));
    group.append(svg("text", { x: 0, y: 10 }, "loss"));
  }

  function line(name, loss, text, shift) {
    const y = down(loss);
    set(find(`.optimum.${name}`), { x1: LEFT, x2: RIGHT, y1: y, y2: y });
    set(find(`.${name}-name`), { x: RIGHT, y: y + shift }, text);
  }

  // What tells an old run from this one.
  function difference(other) {
    const names = {
      rank: `rank ${other.rank}`,
      alpha: `alpha ${other.alpha}`,
      rate: `rate ${other.rate}`,
      start: STARTS[other.start],
    };
    const found = Object.keys(names)
      .filter((name) => other[name] !== settings[name])
      .map((name) => names[name]);
    return found.length > 2 ? `${found[0]}, …` : found.join(", ");
  }

  function curves() {
    const shown = [
      ...old.map((each) => ({ text: difference(each.settings), losses: each.losses })),
      { text: "this run", losses, now: true },
    ];
    find(".old").replaceChildren(...old.map((each) => svg("path", { d: path(each.losses) })));
    set(find(".curve"), { d: path(losses) });
    let free = TOP; // names keep their order and do not cover each other
    for (const each of shown.sort((a, b) => down(a.losses.at(-1)) - down(b.losses.at(-1)))) {
      const y = Math.max(free, down(each.losses.at(-1)) + 4);
      free = y + 14;
      const place = { x: RIGHT + 6, y };
      if (!each.now) find(".old").append(svg("text", place, each.text));
      else set(find(".now"), place, old.length ? each.text : "");
    }
  }

  function bars() {
    const found = window.loraSvd.jacobi(run.update()).s;
    const most = Math.max(task.values[0], found[0]) || 1;
    const height = (value) => (94 * value) / most;
    find(".bars").replaceChildren(
      ...Array.from({ length: 10 }, (_, i) => {
        const group = svg("g", {}),
          x = 16 + i * 29,
          high = height(found[i] > 1e-9 ? found[i] : 0),
          goal = 102 - height(task.values[i]);
        group.append(
          svg("rect", { class: "bar", x, y: 102 - high, width: 18, height: high }),
          svg("line", { class: "goal", x1: x - 3, x2: x + 21, y1: goal, y2: goal }),
        );
        return group;
      }),
    );
  }

  function verdict() {
    const loss = losses.at(-1);
    if (!Number.isFinite(loss) || loss > 20 * task.best[0])
      return "It diverges: the learning rate is too high for this alpha.";
    if (settings.start === "both" && run.steps)
      return "Nothing moves: with both factors 0, both gradients are 0.";
    if (loss <= task.best[settings.rank] * 1.005)
      return "It has found the best update of this rank.";
    return run.steps >= STEPS ? "Not there yet: a higher rate or alpha gets there sooner." : "";
  }

  function draw() {
    const loss = losses.at(-1);
    show("step", run.steps);
    show("loss", Number.isFinite(loss) ? loss.toFixed(4) : "none");
    show("verdict", verdict());
    pictures();
    curves();
    bars();
  }

  // ---- a run

  // The curve that another setting leaves behind; one that a slider only passed on its way is not kept.
  function keep() {
    if (settings && losses.length > ENOUGH) old.push({ settings, losses });
    settings = chosen();
    old = old.filter((each) => !same(each.settings, settings)).slice(-KEPT);
  }

  function restart() {
    keep();
    const { rank, alpha, rate, start } = settings;
    const A = start === "both" ? zeros(rank, k) : task.A.slice(0, rank);
    const B = start === "none" ? task.B.map((row) => row.slice(0, rank)) : zeros(d, rank);
    run = trainer(task, { A, B }, { alpha });
    losses = [run.loss()];
    for (const [name, value] of Object.entries({ rank, alpha, rate })) {
      show(name, value);
      part(name).ariaValueText = `${name} ${value}`;
    }
    show("best-rank", rank);
    show("best", task.best[rank].toFixed(4));
    show("count", whole(rank * (d + k)));
    find(".training-factors").style.setProperty("--rank", rank);
    paint("best", best(rank), largest);
    line("own", task.best[rank], `best of rank ${rank}`, -5);
    line("full", task.best.at(-1), "best full update", 14);
    remember(form, settings, USUAL);
    draw();
    if (seen) go();
  }

  function go() {
    cancelAnimationFrame(frame);
    part("run").textContent = "Pause";
    frame = requestAnimationFrame(advance);
  }

  function advance() {
    for (let i = 0; i < FRAME && run.steps < STEPS; i += 1) {
      run.step(settings.rate);
      losses.push(run.loss());
    }
    const ended = run.steps >= STEPS || !Number.isFinite(losses.at(-1));
    if (!still || ended) draw();
    if (!ended) frame = requestAnimationFrame(advance);
    else pause("Train again", `Step ${run.steps}, loss ${losses.at(-1).toFixed(4)}. ${verdict()}`);
  }

  function pause(name, status = "") {
    cancelAnimationFrame(frame);
    frame = 0;
    part("run").textContent = name;
    show("status", status);
  }

  function recall() {
    const state = new URLSearchParams(location.search);
    const put = (name, value) => {
      if (Number.isFinite(value) && value >= 0) part(name).value = value;
    };
    put("rank", Number(state.get("rank") ?? USUAL.rank));
    put("alpha", Math.log2(Number(state.get("alpha") ?? USUAL.alpha)));
    const near = RATES.findIndex((value) => value >= Number(state.get("rate") ?? USUAL.rate));
    put("rate", near < 0 ? RATES.length - 1 : near);
    const start = find(`[name=start][value="${CSS.escape(state.get("start") ?? USUAL.start)}"]`);
    if (start) start.checked = true;
    restart();
  }

  part("run").addEventListener("click", () => {
    if (frame) pause("Go on");
    else if (run.steps >= STEPS || !Number.isFinite(losses.at(-1))) restart();
    else go();
  });
  part("clear").addEventListener("click", () => {
    old = [];
    curves();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const input of form.querySelectorAll("input")) input.addEventListener("input", restart);
  axis();
  recall();

  const sight = new IntersectionObserver(
    (entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      sight.disconnect();
      seen = true;
      go();
    },
    { threshold: 0.6 },
  );
  sight.observe(find(".training-scene"));
})();
