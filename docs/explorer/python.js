// The one Python of a page, which runs in a worker, and the fields that code is written in: for exercises.js
// and cells.js.
(() => {
  "use strict";
  if (!window.loraPython) return;

  const INDENT = "    ";
  const { address, make } = window.loraPrograms;
  const { wheels, data, runtime, scripts, hashes, bytes, compiled, drawing, keywords } =
    window.loraPython;
  const integrity = Object.fromEntries(
    Object.entries(hashes).map(([path, hash]) => [address(path), hash]),
  );
  const megabytes = (n) => (n / 1e6).toFixed(0);

  let worker,
    expected,
    calls = 0;
  const waiting = new Map(); // what was asked of Python, by its number
  const python = (window.loraPage = {
    there: false,
    life: 0,
    size: megabytes(bytes + compiled),
    drawing: megabytes(drawing), // for code that draws
    start,
    stop,
    ask,
    worker: workerOf,
    field,
    download,
    recall,
    remember,
  });

  function start() {
    // a stop begins another life
    if (worker) return;
    const begun = (worker = workerOf([
      ...scripts,
      "_static/spectra.js",
      "_static/python-worker.js",
    ]));
    const ours = (what) => begun === worker && what();
    begun
      .then((started) => {
        started.addEventListener("message", ({ data }) => ours(() => heard(data)));
        started.addEventListener("error", () =>
          ours(() =>
            stop(
              "Python could not be started here. Try another browser, or take the exercises home.",
            ),
          ),
        );
      })
      .catch((error) =>
        ours(() => stop(`Python could not be loaded (${error.message}). Try again.`)),
      );
    expected = bytes;
    send({
      runtime: address(runtime),
      wheels: wheels.map(address),
      data,
      integrity,
      folder: address("_static/data/"),
    });
    loading(0);
  }

  // The worker is made of texts whose hashes are right, and has the policy of this page, which a worker
  // with an address of its own would not have.
  async function workerOf(parts) {
    const texts = await Promise.all(parts.map(address).map(script));
    return new Worker(URL.createObjectURL(new Blob(texts, { type: "text/javascript" })));
  }

  async function script(url) {
    const answer = await fetch(url, { integrity: integrity[url] ?? "" }).catch(() => null);
    const name = url.split("/").at(-1);
    if (!answer) throw new Error(`${name} did not come, or is not the file that it should be`);
    if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
    return `${await answer.text()}\n`;
  }

  function send(what) {
    worker.then((started) => started.postMessage(what)).catch(() => {}); // which start has told
  }

  function heard(data) {
    if (data.stage) performance.mark(`python:${data.stage}`);
    if (data.failed) stop(data.failed);
    else if (data.loaded) loading(data.loaded);
    else if (data.more) expected += drawing;
    else if (data.ready) {
      python.there = true;
      loading();
    }
    const asked = waiting.get(data.id);
    if (!asked) return;
    if (data.done) finish(data.id, data);
    else if (data.began) {
      asked.runs = true;
      const late =
        `${asked.name} has not returned for ${asked.seconds} seconds. ` +
        "Is there a loop that does not end?";
      if (asked.seconds) asked.late = setTimeout(() => stop(late), 1000 * asked.seconds);
      loading();
      asked.began?.();
    } else asked.shown?.(data);
  }

  function finish(id, answer) {
    const asked = waiting.get(id);
    clearTimeout(asked.late);
    waiting.delete(id);
    asked.resolve(answer);
  }

  function stop(text) {
    worker?.then((started) => started.terminate()).catch(() => {});
    worker = undefined;
    python.there = false;
    python.life++;
    loading();
    for (const id of [...waiting.keys()]) finish(id, { text, passed: false, stopped: true });
  }

  // What page.py answers to `what`. `began` is called when its code begins to run, which it may for
  // `seconds`; `shown` with all that comes before the answer. An aborted `signal` takes the question back,
  // for which Python may have to stop.
  function ask(what, { name, seconds, began, shown, signal } = {}) {
    start();
    return new Promise((resolve) => {
      const id = ++calls;
      waiting.set(id, { name, seconds, began, shown, resolve });
      send({ id, ...what });
      signal?.addEventListener("abort", () => forget(id));
    });
  }

  function forget(id) {
    if (waiting.get(id)?.runs) stop("Stopped.");
    if (!waiting.has(id)) return;
    send({ forget: id });
    finish(id, { text: "Stopped.", passed: false, stopped: true });
  }

  // How much of Python has come, where it is waited for; nothing once it is there.
  function loading(loaded) {
    for (const bar of document.querySelectorAll(".python-loading")) {
      const progress = bar.querySelector("progress");
      bar.hidden = loaded === undefined || !bar.closest(".used");
      if (bar.hidden) continue;
      // of which the latter is not counted as it comes
      const share = loaded / expected,
        all = expected + compiled;
      if (loaded && share < 0.99) progress.value = share;
      else progress.removeAttribute("value"); // under way, how far is unknown
      bar.querySelector("span").textContent =
        share < 0.99
          ? `Loading Python: ${megabytes(share * all)} of ${megabytes(all)} MB`
          : "Starting Python";
    }
  }

  // What this browser remembers under a name, if it may
  function recall(name) {
    try {
      return JSON.parse(localStorage.getItem(`lora_np:${name}`)) || {};
    } catch {
      return {};
    }
  }

  function remember(name, what) {
    try {
      localStorage.setItem(`lora_np:${name}`, JSON.stringify(what));
    } catch {
      /* private windows: then it is forgotten */
    }
  }

  // A file that the reader's browser saves.
  function download(name, content) {
    const href = URL.createObjectURL(new Blob([content])),
      link = make("a", "", "", { href, download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(href), 10000);
  }

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
    const line = area.value.slice(
      area.value.lastIndexOf("\n", area.selectionStart - 1) + 1,
      area.selectionStart,
    );
    put(area, `\n${line.match(/^ */)[0]}${/:\s*$/.test(line) ? INDENT : ""}`);
  }

  // Parts of Python that have a colour, in the classes of the site's style for code.
  const PARTS = new RegExp(
    [
      "(?<c1>#.*)",
      `(?<s2>\\b[rbfuRBFU]{0,2}(?:"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$))|` +
        `[rbfuRBFU]{0,2}(?:"(?:\\\\.|[^"\\\\\\n])*"?|'(?:\\\\.|[^'\\\\\\n])*'?))`,
      `\\b(?<k>${keywords.join("|")})\\b`,
      "\\b(?<mi>\\d[\\w.]*)",
    ].join("|"),
    "g",
  );

  function coloured(code) {
    const parts = [];
    let end = 0;
    for (const found of code.matchAll(PARTS)) {
      const [kind, text] = Object.entries(found.groups).find(([, text]) => text !== undefined);
      parts.push(code.slice(end, found.index), make("span", text, kind));
      end = found.index + text.length;
    }
    return [...parts, code.slice(end), "\n"];
  }

  // Make a field for code of a textarea: colours below its own letters, which are not seen; the keys of an
  // editor.
  function field(area, { run, check = run }) {
    const box = make("div", "", "code-field"),
      colours = make("pre", "", "highlight", { ariaHidden: "true" });
    area.replaceWith(box);
    box.append(colours, area);
    const colour = () => colours.replaceChildren(...coloured(area.value));
    area.addEventListener("input", colour);
    colour();
    let leaving = false; // after Escape, Tab leaves the field
    area.addEventListener("keydown", (event) => {
      if (event.isComposing || event.key === "Shift") return;
      const indents =
        event.key === "Tab" && !leaving && !event.ctrlKey && !event.altKey && !event.metaKey;
      leaving = event.key === "Escape";
      if (!indents && (event.key !== "Enter" || event.altKey)) return;
      event.preventDefault();
      if (indents) indent(area, event.shiftKey);
      else if (event.ctrlKey || event.metaKey) check();
      else if (event.shiftKey) run();
      else newLine(area);
    });
    area.addEventListener("blur", () => {
      leaving = false;
    });
    return (code) => {
      // in place of what was written
      area.value = code;
      colour();
    };
  }
})();
