// Python in a worker: it starts once. What it is asked, docs/browser/page.py answers, one after the other.
"use strict";

const PRINTED = { cell: 40_000, run: 4000, check: 4000, puzzle: 0, set: 0 }; // characters shown of what is printed
const DRAWS = /matplotlib|plot|figure|sliders|PIL/; // code that cannot do without matplotlib

let pyodide, page, current, left, most, cut, draws;
let queue = Promise.resolve();
const tell = (what) => self.postMessage(what);

// What is fetched, by Pyodide too, is counted as it comes.
const fetchPlainly = self.fetch.bind(self);
let loaded = 0;
self.fetch = async (...given) => {
  const response = await fetchPlainly(...given);
  if (!response.ok || !response.body) return response;
  const count = new TransformStream({
    transform(part, out) {
      loaded += part.length;
      tell({ loaded });
      out.enqueue(part);
    },
  });
  // without its status, since one of 204 may have no body
  return new Response(response.body.pipeThrough(count), { headers: response.headers });
};

// A stream of Python's own that shows what is printed at once, up to a limit.
function stream() {
  const decoder = new TextDecoder();
  const write = (bytes) => {
    const text = decoder.decode(bytes, { stream: true });
    const shown = text.slice(0, left);
    left -= shown.length;
    if (shown) tell({ id: current, printed: shown });
    if (shown.length < text.length && !cut) tell({ id: current, cut: most });
    cut ||= shown.length < text.length;
    return bytes.length;
  };
  return { write };
}

async function fetched(wheel) {
  const response = await fetch(wheel);
  if (!response.ok) throw new Error(`${wheel}: ${response.status}`);
  return response.arrayBuffer();
}

async function begin({ runtime, wheels, drawing }) {
  importScripts(`${runtime}pyodide.js`);
  const packages = drawing ? ["numpy", "matplotlib"] : ["numpy"]; // which come along with Python
  const env = { HOME: "/home/pyodide", MPLBACKEND: "Agg" };
  const [python, ...archives] = await Promise.all([
    self.loadPyodide({ indexURL: runtime, packages, env }),
    ...wheels.map(fetched),
  ]);
  tell({ stage: "fetched" });
  const extractDir = python.runPython("import site; site.getsitepackages()[0]"); // found from any working directory
  for (const archive of archives) python.unpackArchive(archive, "wheel", { extractDir });
  const module = python.pyimport("lora_np_browser.page");
  python.setStdout(stream());
  python.setStderr(stream());
  [pyodide, page, draws] = [python, module, drawing];
  tell({ ready: true, stage: "ready" });
}

async function answer(data) {
  if (!draws && DRAWS.test(data.code)) {
    tell({ more: true });
    await pyodide.loadPackage("matplotlib", { messageCallback: () => {} });
    pyodide.pyimport("lora_np_browser").keep_fonts();
    draws = true;
  }
  current = data.id;
  left = most = PRINTED[data.kind];
  cut = false;
  tell({ id: data.id, began: true });
  const show = (what) => tell({ id: data.id, ...JSON.parse(what) });
  tell({ id: data.id, done: true, ...JSON.parse(page.answer(JSON.stringify(data), show)) });
}

self.addEventListener("message", ({ data }) => {
  const said = data.runtime ? "could not be loaded" : "stopped";
  const failed = (error) => tell({ failed: `Python ${said} (${error.message}). Try again.` });
  queue = queue.then(() => (data.runtime ? begin(data) : page && answer(data))).catch(failed);
});
