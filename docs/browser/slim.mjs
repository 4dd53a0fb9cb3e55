// Wheels of a Pyodide distribution with what a lesson imports at its start as bytecode, which loads in half the
// time, and without the large data of matplotlib, which a page fetches when they are opened: node slim.mjs DIST OUT
// PACKAGE ... writes the wheels that change to OUT, the data to OUT/data, and the lock with the new hashes.
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [dist, out, ...packages] = process.argv.slice(2);
const { loadPyodide } = await import(pathToFileURL(join(dist, "pyodide.mjs")));
const pyodide = await loadPyodide({
  indexURL: `${dist}/`,
  env: { HOME: "/home/pyodide", MPLBACKEND: "Agg" },
});
await pyodide.loadPackage(packages, { messageCallback: () => {} });
for (const [place, root] of Object.entries({ "/dist": dist, "/out": out })) {
  pyodide.FS.mkdir(place);
  pyodide.FS.mount(pyodide.FS.filesystems.NODEFS, { root }, place);
}
pyodide.runPython(`
import hashlib, json, sys, zipfile
from importlib._bootstrap_external import _code_to_hash_pyc
from pathlib import Path
import matplotlib.pyplot, numpy

SITE = "/lib/python3.12/site-packages/"
READ = {"matplotlib/font_manager.py"}  # by lora_np_browser, for its version
files = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
files = {file.removeprefix(SITE) for file in files if file.startswith(SITE) and file.endswith(".py")} - READ

FONTS = {"DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSans-Oblique.ttf"}  # of nearly every figure
UNUSED = {"fonttools", "pytz"}  # only to write PDF and PostScript; by older versions

def rare(part, content): # matplotlib reads its styles when it is imported
    folder = part.startswith(tuple(f"matplotlib/mpl-data/{name}/" for name in ("fonts", "images", "sample_data")))
    return folder and len(content) > 20_000 and Path(part).name not in FONTS

lock = json.loads(Path("/dist/pyodide-lock.json").read_text())
for package in lock["packages"].values():
    name = package["file_name"]
    if not (name.endswith(".whl") and Path("/dist", name).exists()):
        continue
    with zipfile.ZipFile(Path("/dist", name)) as before:
        parts = {part: before.read(part) for part in before.namelist()}
    package["depends"] = [name for name in package["depends"] if name not in UNUSED]
    for part in [part for part, content in parts.items() if rare(part, content)]:
        target = Path("/out/data", part)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(parts.pop(part))
    here = files & parts.keys()
    if not here:
        continue
    for part in here:
        code = compile(parts.pop(part), SITE + part, "exec", dont_inherit=True)
        parts[part + "c"] = bytes(_code_to_hash_pyc(code, bytes(8), False))  # never checked against a source
    with zipfile.ZipFile(Path("/out", name), "w", zipfile.ZIP_DEFLATED) as after:
        for part, content in parts.items():
            after.writestr(part, content)
    package["sha256"] = hashlib.sha256(Path("/out", name).read_bytes()).hexdigest()
Path("/out/pyodide-lock.json").write_text(json.dumps(lock))
`);
