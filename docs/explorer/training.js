// Live training of B A on a small linear map, down to the line of the optimum. Its choices are kept in the address.
(() => {
  "use strict";

  const form = document.getElementById("training");
  if (!form || !window.loraTask) return;

  const task = window.loraTask;
  const { trainer, singularValues, zeros } = window.loraTraining;
  const [d, k] = [task.y[0].length, task.x[0].length];
  const STEPS = 400, LEFT = 34, RIGHT = 316, TOP = 12, BOTTOM = 148, FRAME = 4; // steps in a frame
  const RATES = [0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.2, 0.3];
  const part = (name) => form.elements.namedItem(name);
  const show = (name, text) => { form.querySelector(`[data-show="${name}"]`).textContent = text; };
  const svg = (tag, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };

  const rank = () => Number(part("rank").value);
  const alpha = () => 2 ** Number(part("alpha").value);
  const rate = () => RATES[Number(part("rate").value)];

  let run, losses, frame;

  const lowest = Math.log(task.best.at(-1) * 0.8), highest = Math.log(task.best[0] * 1.6);
  const across = (step) => LEFT + ((RIGHT - LEFT) * step) / STEPS;
  const down = (loss) => {
    const share = (highest - Math.log(Math.max(loss, 1e-12))) / (highest - lowest);
    return TOP + (BOTTOM - TOP) * Math.min(1.02, Math.max(-0.02, share));
  };

  function axis() {
    const group = form.querySelector(".axis");
    for (const loss of [0.1, 0.2, 0.5, 1]) {
      group.append(svg("line", { x1: LEFT, x2: RIGHT, y1: down(loss), y2: down(loss) }));
      const text = svg("text", { x: LEFT - 4, y: down(loss) + 3, "text-anchor": "end" });
      text.textContent = loss;
      group.append(text);
    }
    for (const step of [0, 100, 200, 300, 400]) {
      const text = svg("text", { x: across(step), y: BOTTOM + 10, "text-anchor": "middle" });
      text.textContent = step;
      group.append(text);
    }
  }

  function line(name, loss, text, above) {
    const y = down(loss);
    const element = form.querySelector(`.optimum.${name}`);
    element.setAttribute("y1", y);
    element.setAttribute("y2", y);
    const label = form.querySelector(`.${name}-name`);
    label.setAttribute("y", above ? y - 3 : y + 9);
    label.textContent = text;
  }

  function bars() {
    const found = singularValues(run.update()).slice(0, 10);
    const largest = Math.max(task.values[0], found[0]) || 1;
    const height = (value) => (94 * value) / largest;
    form.querySelector(".bars").replaceChildren(...Array.from({ length: 10 }, (_, i) => {
      const group = svg("g", {});
      const x = LEFT + i * 28;
      const value = found[i] > 1e-9 ? found[i] : 0;
      group.append(svg("rect", { class: "bar", x, y: 102 - height(value), width: 18, height: height(value) }));
      const goal = 102 - height(task.values[i]);
      group.append(svg("line", { class: "goal", x1: x - 3, x2: x + 21, y1: goal, y2: goal }));
      return group;
    }));
  }

  function verdict() {
    const loss = losses.at(-1), best = task.best[rank()];
    if (!Number.isFinite(loss) || loss > 20 * task.best[0]) return "It diverges: the learning rate is too high for this alpha.";
    if (part("start").value === "both" && run.steps) return "Nothing moves: with both factors 0, both gradients are 0.";
    if (loss <= best * 1.005) return "It has found the best update of this rank.";
    return run.steps >= STEPS ? "Not there yet: a higher rate or alpha gets there sooner." : "";
  }

  function draw() {
    const loss = losses.at(-1);
    show("step", run.steps);
    show("loss", Number.isFinite(loss) ? loss.toFixed(4) : "none");
    show("verdict", verdict());
    const points = losses.map((value, step) => `${across(step).toFixed(1)},${down(Number.isFinite(value) ? value : 1e9).toFixed(1)}`);
    form.querySelector(".curve").setAttribute("d", `M${points.join("L")}`);
    bars();
  }

  function restart() {
    cancelAnimationFrame(frame);
    const r = rank();
    const start = part("start").value;
    const A = start === "both" ? zeros(r, k) : task.A.slice(0, r);
    const B = start === "none" ? task.B.map((row) => row.slice(0, r)) : zeros(d, r);
    run = trainer(task, { A, B }, { alpha: alpha(), rate: rate() });
    losses = [run.loss()];
    show("rank", r);
    show("alpha", alpha());
    show("rate", rate());
    show("best", task.best[r].toFixed(4));
    show("count", (r * (d + k)).toLocaleString("en-US"));
    for (const name of ["rank", "alpha", "rate"]) part(name).setAttribute("aria-valuetext", `${name} ${{ rank: r, alpha: alpha(), rate: rate() }[name]}`);
    line("own", task.best[r], `best of rank ${r}`, r < 4);
    line("full", task.best.at(-1), "best full update", r < 4);
    part("run").textContent = "Train";
    history.replaceState(null, "", `#${new URLSearchParams({ rank: r, alpha: alpha(), rate: rate(), start })}`);
    draw();
  }

  function advance() {
    for (let i = 0; i < FRAME && run.steps < STEPS; i += 1) {
      run.step();
      losses.push(run.loss());
    }
    draw();
    if (run.steps < STEPS && Number.isFinite(losses.at(-1))) frame = requestAnimationFrame(advance);
    else pause(`Step ${run.steps}, loss ${losses.at(-1).toFixed(4)}. ${verdict()}`);
  }

  function pause(status) {
    cancelAnimationFrame(frame);
    frame = 0;
    part("run").textContent = "Train";
    if (status) show("status", status);
  }

  function recall() {
    const state = new URLSearchParams(location.hash.slice(1));
    const set = (name, value) => { if (Number.isFinite(value) && value >= 0) part(name).value = value; };
    set("rank", Number(state.get("rank") ?? 3));
    set("alpha", Math.log2(Number(state.get("alpha") ?? 8)));
    const near = RATES.findIndex((value) => value >= Number(state.get("rate") ?? 0.02));
    set("rate", near < 0 ? RATES.length - 1 : near);
    const start = form.querySelector(`[name=start][value="${CSS.escape(state.get("start") ?? "B")}"]`);
    if (start) start.checked = true;
    restart();
  }

  part("run").addEventListener("click", () => {
    if (frame) return pause();
    if (run.steps >= STEPS) restart();
    part("run").textContent = "Pause";
    frame = requestAnimationFrame(advance);
    return undefined;
  });
  part("again").addEventListener("click", restart);
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const input of form.querySelectorAll("input")) input.addEventListener("input", restart);
  window.addEventListener("hashchange", recall);
  axis();
  recall();
})();
