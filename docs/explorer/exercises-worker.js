// Python in a worker: it starts once, and each answer is run in a fresh namespace.
"use strict";

const PRINTED = 4000; // characters shown of what one answer prints
const ANSWER = `
import json, linecache, sys, traceback
from pyodide.code import eval_code
from lora_np import exercises

OWN = "<your code>"

def define(code, title, space):
    linecache.cache[title] = len(code), None, code.splitlines(keepends=True), title
    return eval_code(code, space, filename=title)

def said(error):
    """An error as Python shows it, but its last line first, and without the frames of this page."""
    frames = error.__traceback__
    while frames and not frames.tb_frame.f_code.co_filename.startswith("<your "):
        frames = frames.tb_next
    *shown, last = traceback.format_exception_only(error)
    return "".join([last, *traceback.format_tb(frames), *shown]).rstrip()

def answer(asked):
    asked = json.loads(asked)
    name, space = asked["name"], {"__name__": "__main__"}
    text, passed, earned = "", False, ""
    exec(exercises.HEADER, space)
    try:
        for earlier, code in asked["before"]:
            define(code, f"<your {earlier}>", space)
        value = define(asked["code"], OWN, space)
        if asked["kind"] == "run" and value is not None:
            print(repr(value))
    except BaseException as error:
        text = said(error)
    else:
        if asked["kind"] == "run":
            passed = True
        elif not callable(space.get(name)):
            text = f"There is no function {name} here."
        else:
            outcome = exercises.check(space[name])
            of = exercises.plural(outcome.exercise.points, "point")
            text, passed, earned = repr(outcome), outcome.passed, f"{outcome.points} of {of}"
    sys.stdout.flush()
    return json.dumps({"text": text, "passed": passed, "earned": earned})

exec(exercises.HEADER, {})  # loads the package now: a check's time is not spent on it
answer
`;

let ready, current, left, cut;
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
    if (shown.length < text.length && !cut) tell({ id: current, cut: PRINTED });
    cut ||= shown.length < text.length;
    return bytes.length;
  };
  return { write };
}

async function begin({ runtime, wheel }) {
  importScripts(`${runtime}pyodide.js`);
  const [pyodide, archive] = await Promise.all([
    self.loadPyodide({ indexURL: runtime }),
    fetch(wheel).then((response) => {
      if (!response.ok) throw new Error(`${wheel}: ${response.status}`);
      return response.arrayBuffer();
    }),
  ]);
  await pyodide.loadPackage("numpy", { messageCallback: () => {} });
  pyodide.unpackArchive(archive, "wheel");
  const answer = pyodide.runPython(ANSWER);
  pyodide.setStdout(stream());
  pyodide.setStderr(stream());
  tell({ ready: true });
  return answer;
}

self.addEventListener("message", async ({ data }) => {
  if (data.runtime) {
    const failed = (error) => tell({ failed: `Python could not be loaded (${error.message}). Try again.` });
    ready = begin(data).catch(failed);
    return;
  }
  const answer = await ready;
  if (!answer) return; // why has been told
  [current, left, cut] = [data.id, PRINTED, false];
  tell({ id: data.id, began: true });
  try {
    tell({ id: data.id, ...JSON.parse(answer(JSON.stringify(data))) });
  } catch (error) {
    tell({ failed: `Python stopped: ${error.message}` });
  }
});
