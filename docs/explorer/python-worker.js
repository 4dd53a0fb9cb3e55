// Python in a worker: it starts once. What it is asked, docs/browser/page.py answers, one after the other.
// python.js puts Pyodide's own scripts before this one.

// characters shown of what is printed
const PRINTED = { cell: 40_000, run: 4000, check: 4000, puzzle: 0, set: 0 };
const DRAWS = /matplotlib|plot|plt|figure|sliders|PIL/; // code that cannot do without matplotlib
// what can: an import, for which page.py has a stand-in until something is drawn
const IMPORTS = /^(?:import matplotlib\.pyplot as plt|from lora_np(?:\.plots)? import .*)$/gm;
const MOUNTED = "/given"; // where files of the reader lie, a folder for each place

let pyodide, page, current, left, most, cut, draws, place, integrity;
let shown = false; // whether a cell has shown anything
const forgotten = new Set(); // questions whose answer nobody waits for any more
let queue = Promise.resolve();
const tell = (what) => self.postMessage(what);

// What is fetched, by Pyodide too, must have the hash that the site was built with, or that Pyodide's lock
// has. It is counted as it comes; but a browser keeps what it has compiled of WebAssembly only for answers
// that it knows.
const fetchPlainly = self.fetch.bind(self);
let loaded = 0;
self.fetch = async (what, options) => {
  const url = String(what),
    name = url.split("/").at(-1);
  const hash = integrity[url] ?? options?.integrity;
  const verified = { ...options, integrity: hash };
  const response = await (hash ? fetchPlainly(url, verified) : Promise.reject()).catch(() => {
    const why = `${name} did not come, or is not the file that it should be`;
    tell({ failed: `Python could not be loaded (${why}). Try again.` }); // Pyodide may wait for ever
    throw new Error(why);
  });
  if (!response.ok || !response.body || response.url.endsWith(".wasm")) return response;
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
    const part = text.slice(0, left);
    left -= part.length;
    if (part) show({ printed: part });
    if (part.length < text.length && !cut) show({ cut: most });
    cut ||= part.length < text.length;
    return bytes.length;
  };
  return { write };
}

async function fetched(wheel) {
  const response = await fetch(wheel);
  if (!response.ok) throw new Error(`${wheel}: ${response.status}`);
  return response.arrayBuffer();
}

function show(what) {
  shown = true;
  tell({ id: current, ...what });
}

async function begin({ runtime, wheels, data, folder, integrity: hashes }) {
  integrity = hashes;
  const env = { HOME: "/home/pyodide", MPLBACKEND: "Agg" };
  const [python, ...archives] = await Promise.all([
    self.loadPyodide({ indexURL: runtime, packages: ["numpy"], env }),
    ...wheels.map(fetched),
  ]);
  tell({ stage: "fetched" });
  // found from any working directory
  const extractDir = python.runPython("import site; site.getsitepackages()[0]");
  for (const archive of archives) python.unpackArchive(archive, "wheel", { extractDir });
  pyodide = python;
  // large data of a package are fetched when they are opened
  place = (name) => {
    for (const path of data.filter((path) => path.startsWith(name))) {
      const [parent, file] = `${extractDir}/${path}`.split(/\/(?=[^/]+$)/);
      python.FS.mkdirTree(parent);
      python.FS.createLazyFile(parent, file, folder + path, true, false);
    }
  };
  place("lora_np");
  page = python.pyimport("lora_np_browser.page");
  python.setStdout(stream());
  python.setStderr(stream());
  tell({ ready: true, stage: "ready" });
}

async function draw() {
  tell({ more: true });
  await pyodide.loadPackage("matplotlib", { messageCallback: () => {} });
  place("matplotlib");
  page.can_draw();
  draws = true;
}

// Whether matplotlib must be there: for a cell that only imports it, once something has been shown
function mustDraw({ kind, code = "" }) {
  return DRAWS.test(kind === "cell" && !shown ? code.replace(IMPORTS, "") : code);
}

// Files of the reader, each place a folder, where Python reads them as they lie
function mount(files) {
  const { FS } = pyodide;
  for (const [place, blobs] of Object.entries(files)) {
    const folder = `${MOUNTED}/${place}`;
    if (FS.analyzePath(folder).exists) FS.unmount(folder);
    FS.mkdirTree(folder);
    FS.mount(FS.filesystems.WORKERFS, { blobs }, folder);
  }
}

async function answer({ files, ...asked }) {
  if (forgotten.delete(asked.id)) return;
  if (!draws && mustDraw(asked)) await draw();
  if (files) mount(files);
  current = asked.id;
  left = most = PRINTED[asked.kind] ?? 0;
  cut = false;
  tell({ id: current, began: true });
  const told = JSON.parse(page.answer(JSON.stringify(asked), (what) => show(JSON.parse(what))));
  if (told.file) told.bytes = page.file().toJs();
  tell({ id: current, done: true, ...told });
}

self.addEventListener("message", ({ data }) => {
  if (data.forget) return forgotten.add(data.forget);
  const said = data.runtime ? "could not be loaded" : "stopped";
  const failed = (error) => tell({ failed: `Python ${said} (${error.message}). Try again.` });
  queue = queue.then(() => (data.runtime ? begin(data) : page && answer(data))).catch(failed);
});
