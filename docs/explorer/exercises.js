// Exercises that are run and checked in the page: Python is in a worker, and what is written is remembered here.
(() => {
  "use strict";

  const forms = [...document.querySelectorAll("form.exercise")];
  if (!forms.length || !window.loraPython) return;

  const SECONDS = 60; // for one answer, from when its code begins to run; then Python is started anew
  const INDENT = "    ";
  const root = new URL(document.documentElement.dataset.content_root || "./", location);
  const address = (path) => new URL(path, root).href;
  const { wheel, runtime, bytes } = window.loraPython;

  let worker, there = false, calls = 0;
  const waiting = new Map(); // what was asked of Python, by its number

  function start() {
    if (worker) return;
    const started = worker = new Worker(address("_static/exercises-worker.js"));
    worker.addEventListener("message", ({ data }) => started === worker && heard(data));
    worker.addEventListener("error", () => stop("Python could not be started here. Try another browser, or take the exercises home."));
    worker.postMessage({ runtime: address(runtime), wheel: address(wheel) });
    loading(0);
  }

  function heard(data) {
    if (data.failed) stop(data.failed);
    else if (data.loaded) loading(data.loaded);
    else if (data.ready) {
      there = true;
      loading();
    }
    const asked = waiting.get(data.id);
    if (!asked) return;
    if (data.began) {
      const late = `${asked.name} has not returned for ${SECONDS} seconds. Is there a loop that does not end?`;
      asked.late = setTimeout(() => stop(late), 1000 * SECONDS);
      asked.began?.();
    } else if (data.printed || data.cut) asked.printed?.(data);
    else finish(data.id, data);
  }

  function finish(id, answer) {
    const asked = waiting.get(id);
    clearTimeout(asked.late);
    waiting.delete(id);
    asked.resolve(answer);
  }

  function stop(text) {
    worker?.terminate();
    worker = undefined;
    there = false;
    loading();
    for (const id of [...waiting.keys()]) finish(id, { text, passed: false, stopped: true });
  }

  // Run `code`, or check the function `name` that it defines, after the code of other exercises.
  function ask(kind, { name, code, before = [], began, printed }) {
    start();
    return new Promise((resolve) => {
      const id = ++calls;
      waiting.set(id, { name, began, printed, resolve });
      worker.postMessage({ id, kind, name, code, before });
    });
  }

  // How much of Python has come, in the forms that wait for it; nothing once it is there.
  function loading(loaded) {
    for (const form of forms) {
      const bar = form.querySelector("[data-show=loading]"), progress = bar.querySelector("progress");
      bar.hidden = loaded === undefined || !form.classList.contains("used");
      if (bar.hidden) continue;
      const share = loaded / bytes, megabytes = (n) => (n / 1e6).toFixed(0);
      if (loaded && share < 0.99) progress.value = share;
      else progress.removeAttribute("value"); // under way, how far is unknown
      bar.querySelector("span").textContent = share < 0.99
        ? `Loading Python: ${megabytes(loaded)} of ${megabytes(bytes)} MB`
        : "Starting Python";
    }
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

  // As if typed, so that the browser can undo it.
  function put(area, text) {
    if (document.execCommand("insertText", false, text)) return;
    area.setRangeText(text, area.selectionStart, area.selectionEnd, "end");
    area.dispatchEvent(new Event("input"));
  }

  // To the next column of four, or the selected lines; `back` takes the lines' indentation away.
  function indent(area, back) {
    const { value, selectionStart: from, selectionEnd: to } = area;
    const start = value.lastIndexOf("\n", from - 1) + 1;
    if (from === to && !back) return put(area, INDENT.slice((from - start) % INDENT.length));
    const last = to > from && value[to - 1] === "\n" ? to - 1 : to;
    const end = (value + "\n").indexOf("\n", last);
    const lines = value.slice(start, end).split("\n");
    const moved = lines.map((line) => (back ? line.replace(/^ {1,4}/, "") : line && INDENT + line));
    const text = moved.join("\n");
    if (text === lines.join("\n")) return;
    area.setSelectionRange(start, end);
    put(area, text);
    const caret = Math.max(start, from - lines[0].length + moved[0].length);
    area.setSelectionRange(from === to ? caret : start, from === to ? caret : start + text.length);
  }

  // A new line is indented as the one before it, and deeper after a colon.
  function newLine(area) {
    const line = area.value.slice(area.value.lastIndexOf("\n", area.selectionStart - 1) + 1, area.selectionStart);
    put(area, `\n${line.match(/^ */)[0]}${/:\s*$/.test(line) ? INDENT : ""}`);
  }

  function keys(area, { run, check }) {
    let leaving = false; // after Escape, Tab leaves the field
    area.addEventListener("keydown", (event) => {
      if (event.isComposing || event.key === "Shift") return;
      const indents = event.key === "Tab" && !leaving && !event.ctrlKey && !event.altKey && !event.metaKey;
      leaving = event.key === "Escape";
      if (!indents && (event.key !== "Enter" || event.altKey)) return;
      event.preventDefault();
      if (indents) indent(area, event.shiftKey);
      else if (event.ctrlKey || event.metaKey) check();
      else if (event.shiftKey) run();
      else newLine(area);
    });
    area.addEventListener("blur", () => { leaving = false; });
  }

  for (const form of forms) {
    const name = form.dataset.exercise, area = form.elements.namedItem("code"), stub = area.defaultValue;
    const button = (which) => form.elements.namedItem(which), shown = (what) => form.querySelector(`[data-show=${what}]`);
    const points = shown("points"), outcome = shown("outcome"), printed = shown("printed"), cut = shown("cut");
    const earlier = remembered(name);
    if (earlier.code) area.value = earlier.code;
    if (earlier.passed) points.textContent = "Solved";
    const keep = () => remember(name, { code: area.value });

    function busy(is) {
      for (const which of ["run", "check"]) button(which).disabled = is;
      button("stop").hidden = true; // until the code runs
    }

    function say(text, kind = "") {
      outcome.hidden = false;
      outcome.textContent = text;
      outcome.dataset.kind = kind;
    }

    function clear() {
      printed.textContent = cut.textContent = "";
      outcome.hidden = printed.parentElement.hidden = true;
    }

    async function answer(kind) {
      if (button(kind).disabled) return;
      keep();
      clear();
      busy(true);
      form.classList.add("used");
      say(there ? "Running …" : "Waiting for Python …");
      const before = form.dataset.needs.split(" ").filter(Boolean)
        .map((other) => [other, forms.find((one) => one.dataset.exercise === other).elements.namedItem("code").value]);
      const found = await ask(kind, {
        name, code: area.value, before,
        began() {
          say("Running …");
          button("stop").hidden = false;
        },
        printed(what) {
          printed.parentElement.hidden = false;
          if (what.cut) cut.textContent = `, the first ${what.cut.toLocaleString("en")} characters`;
          else printed.append(what.printed);
        },
      });
      busy(false);
      if (kind === "run" && found.passed) {
        const nothing = `It ran, and printed nothing. To see a result, add a line below the function: print(${name}(…))`;
        say(printed.textContent ? "It ran." : nothing);
        return;
      }
      say(found.text, found.passed ? "right" : "wrong");
      if (kind === "run" || found.stopped) return;
      if (found.earned) points.textContent = found.passed ? "Solved" : found.earned;
      remember(name, { passed: found.passed });
    }

    area.addEventListener("input", keep);
    if (!navigator.connection?.saveData) {
      area.addEventListener("input", () => { // so that Python is there when the answer is
        form.classList.add("used");
        start();
      }, { once: true });
    }
    keys(area, { run: () => answer("run"), check: () => answer("check") });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      answer("check");
    });
    button("run").addEventListener("click", () => answer("run"));
    button("stop").addEventListener("click", () => stop("Stopped."));
    button("reset").addEventListener("click", () => {
      area.value = stub;
      clear();
      keep();
    });
  }

  window.loraExercises = { check: (name, code) => ask("check", { name, code }) };
})();
