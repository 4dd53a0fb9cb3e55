// The test suite under Pyodide, in Node: node tests/pyodide/run.mjs DIST WHEELS [argument of pytest ...]
// DIST is a folder with the Pyodide runtime, WHEELS one with the pure wheels that the tests need.
import { readFileSync, readdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const [dist, wheels] = process.argv.slice(2, 4).map((folder) => resolve(folder));
const root = fileURLToPath(new URL("../..", import.meta.url));

const { loadPyodide } = await import(pathToFileURL(join(dist, "pyodide.mjs")));
const share = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => name.startsWith("LORA_NP_")),
);
const env = { HOME: "/home/pyodide", MPLBACKEND: "Agg", COLUMNS: "120", ...share };
const pyodide = await loadPyodide({ indexURL: dist, env });
await pyodide.loadPackage(["numpy", "matplotlib"], { messageCallback: () => {} });
const extractDir = pyodide.runPython("import sysconfig; sysconfig.get_path('purelib')");
for (const name of readdirSync(wheels).filter((name) => name.endsWith(".whl"))) {
  pyodide.unpackArchive(new Uint8Array(readFileSync(join(wheels, name))), "wheel", { extractDir });
}
pyodide.FS.mkdir("/checkout");
pyodide.FS.mount(pyodide.FS.filesystems.NODEFS, { root }, "/checkout");
pyodide.FS.mkdir("/wheels");
pyodide.FS.mount(pyodide.FS.filesystems.NODEFS, { root: wheels }, "/wheels");
pyodide.globals.set("arguments", process.argv.slice(4));
process.exitCode = pyodide.runPython(`
import os, sys
os.chdir("/checkout")
sys.path[:0] = ["/checkout", "/checkout/tests/pyodide"]
sys.dont_write_bytecode = True
import numpy, pytest
print("Python", sys.version.split()[0], "on", sys.platform, "with NumPy", numpy.__version__)
# Descriptors of deleted files, which capturing by descriptor needs, do not work there.
int(pytest.main(["--capture=sys", "-p", "skips", "-p", "no:cacheprovider", *arguments]))
`);
