// Exercises that are checked in the page: Python runs in a worker, and what is written is remembered here.
(() => {
  "use strict";

  const forms = [...document.querySelectorAll("form.exercise")];
  if (!forms.length || !window.loraPython) return;

  const SECONDS = 60; // for one check, after which Python is started anew
  const root = new URL(document.documentElement.dataset.content_root || "./", location);
  const address = (path) => new URL(path, root).href;
  const { wheel, runtime } = window.loraPython;

  let worker, calls = 0;
  const waiting = new Map();

  function start() {
    worker = new Worker(address("_static/exercises-worker.js"));
    worker.addEventListener("message", ({ data }) => {
      waiting.get(data.id)?.(data);
      waiting.delete(data.id);
    });
    worker.addEventListener("error", () => stop("Python could not be started here. Try another browser, or take the exercises home."));
    worker.postMessage({ runtime: address(runtime), wheel: address(wheel) });
  }

  function stop(text) {
    worker?.terminate();
    worker = undefined;
    for (const answer of waiting.values()) answer({ text, points: 0, passed: false });
    waiting.clear();
  }

  // The outcome of lora_np.exercises.check for the function `name` that `code` defines.
  function check(name, code) {
    if (!worker) start();
    return new Promise((resolve) => {
      const id = ++calls;
      const late = setTimeout(
        () => stop(`${name} has not returned for ${SECONDS} seconds. Is there a loop that does not end?`), 1000 * SECONDS);
      waiting.set(id, (answer) => {
        clearTimeout(late);
        resolve(answer);
      });
      worker.postMessage({ id, name, code });
    });
  }

  const remembered = (name) => {
    try {
      return JSON.parse(localStorage.getItem(`lora_np:${name}`)) || {};
    } catch {
      return {};
    }
  };
  const remember = (name, what) => {
    try {
      localStorage.setItem(`lora_np:${name}`, JSON.stringify({ ...remembered(name), ...what }));
    } catch { /* private windows: then it is forgotten */ }
  };

  for (const form of forms) {
    const name = form.dataset.exercise, area = form.elements.namedItem("code"), stub = area.defaultValue;
    const button = form.querySelector("[type=submit]");
    const points = form.querySelector("[data-show=points]"), outcome = form.querySelector("[data-show=outcome]");
    const earlier = remembered(name);
    if (earlier.code) area.value = earlier.code;
    if (earlier.passed) {
      form.classList.add("passed");
      points.textContent = "Solved";
    }
    const keep = () => remember(name, { code: area.value });
    area.addEventListener("input", keep);
    area.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        form.requestSubmit();
      }
    });
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      keep();
      button.disabled = true;
      outcome.hidden = false;
      outcome.textContent = worker ? "Checking …" : "Starting Python …";
      const before = form.dataset.needs.split(" ").filter(Boolean)
        .map((other) => forms.find((one) => one.dataset.exercise === other).elements.namedItem("code").value);
      const { text, passed, earned } = await check(name, [...before, area.value].join("\n\n"));
      outcome.textContent = text;
      if (earned) points.textContent = passed ? "Solved" : earned;
      form.classList.toggle("passed", Boolean(passed));
      remember(name, { passed: Boolean(passed) });
      button.disabled = false;
    });
    form.elements.namedItem("reset").addEventListener("click", () => {
      area.value = stub;
      outcome.hidden = true;
      keep();
    });
  }

  window.loraExercises = { check };
})();
