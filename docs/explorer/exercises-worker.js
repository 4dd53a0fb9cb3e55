// Python in a worker: it starts once, and each check defines the student's function in a fresh namespace.
"use strict";

const CHECK = `
def _check(name, code):
    import traceback
    from lora_np import exercises
    space = {}
    exec(exercises.HEADER, space)
    try:
        exec(compile(code, "<your code>", "exec"), space)
    except BaseException as error:
        lines = traceback.format_exception(type(error), error, error.__traceback__.tb_next)
        return "".join(lines).rstrip(), False, ""
    if not callable(space.get(name)):
        return f"There is no function {name} here.", False, ""
    outcome = exercises.check(space[name])
    of = exercises.plural(outcome.exercise.points, "point")
    return repr(outcome), outcome.passed, f"{outcome.points} of {of}"
_check
`;

let ready;

async function begin({ runtime, wheel }) {
  importScripts(`${runtime}pyodide.js`);
  const [pyodide, archive] = await Promise.all([
    self.loadPyodide({ indexURL: runtime }),
    fetch(wheel).then((answer) => answer.arrayBuffer()),
  ]);
  await pyodide.loadPackage("numpy", { messageCallback: () => {} });
  pyodide.unpackArchive(archive, "wheel");
  return pyodide.runPython(CHECK);
}

self.addEventListener("message", async ({ data }) => {
  if (data.runtime) {
    ready = begin(data);
    return;
  }
  try {
    const check = await ready;
    const found = check(data.name, data.code);
    const [text, passed, earned] = found.toJs();
    found.destroy();
    self.postMessage({ id: data.id, text, passed, earned });
  } catch (error) {
    self.postMessage({ id: data.id, text: `Python stopped: ${error.message}`, passed: false, earned: "" });
  }
});
