// The cells of a lesson, run in the page, and remembered here once they are edited. Without this script they
// are code with the outputs that were recorded.
(() => {
  "use strict";

  const boxes = [...document.querySelectorAll("article div.cell")];
  if (!boxes.length || !window.loraPage) return;
  const python = window.loraPage;

  const { make, press, whole } = window.loraPrograms;

  // What was edited, by the number of its cell, with the code that it was edited from: a lesson may change.
  const KEY = `cells:${location.pathname.split("/").at(-1)}`;
  const edits = python.recall(KEY);
  function remember(number, edited) {
    if (edited) edits[number] = edited;
    else delete edits[number];
    python.remember(KEY, edits);
  }

  let running = false;
  const cells = boxes.map(prepare);
  const note = make(
    "p",
    "The code of this lesson runs here: Run, below a cell, runs it after those above that have not run yet. " +
      `Python is fetched once, about ${python.size} MB; the first figure takes ${python.drawing} MB more. `,
    "cell-note",
  );
  note.append(press("Run all cells", () => run(cells.length - 1, { anew: true })));
  document.querySelector(".lesson-links").after(note);

  // A cell, with its buttons below its output if it draws, else below its code.
  function prepare(box, place) {
    const number = place + 1,
      source = box.querySelector(".cell_input"),
      recorded = source.querySelector("pre").textContent.trimEnd();
    const fold = box.querySelector("details.cell-code");
    const output =
      box.querySelector(".cell_output") ?? make("div", "", "cell_output docutils container");
    const alts = [...output.querySelectorAll("img:not(.kept img)")].map((image) => image.alt);
    const kept = output.querySelector(".kept"); // its photographs once more, for the dark
    const bar = make("div", "", "cell-bar"),
      said = make("span", "", "", { role: "status" });
    const cell = {
      box,
      number,
      output,
      alts,
      kept,
      bar,
      ran: undefined,
      code: () => recorded,
      changed: () => cell.code().trimEnd() !== recorded,
    };
    cell.say = (text) => {
      said.textContent = text;
    };
    const loading = make("span", "", "python-loading"),
      progress = make("progress", "", "", { max: 1, ariaLabel: "Loading Python" });
    loading.hidden = true;
    loading.append(progress, make("span"));

    let write;
    function open(code) {
      if (fold) fold.open = true;
      if (!write) {
        const keys = "Tab indents; Escape, then Tab, leaves the field. Shift and Enter runs.",
          ariaLabel = `Code of cell ${number}. ${keys}`,
          attributes = { spellcheck: false, autocapitalize: "off", ariaLabel };
        const area = make("textarea", code, "", attributes);
        source.replaceChildren(area);
        write = python.field(area, { run: () => run(place) });
        area.addEventListener("input", keep);
        cell.code = () => area.value;
      }
    }
    function keep() {
      cell.reset.hidden = !cell.changed();
      remember(number, cell.changed() && { recorded, code: cell.code() });
    }
    cell.edit = press(
      "Edit",
      () => {
        open(recorded);
        source.querySelector("textarea").focus();
      },
      `Edit cell ${number}`,
    );
    cell.reset = press(
      "Undo edits",
      () => {
        write(recorded);
        keep();
      },
      `Undo the edits of cell ${number}`,
    );
    cell.stop = press("Stop", () => python.stop("Stopped."), `Stop cell ${number}`);
    cell.reset.hidden = cell.stop.hidden = true;
    cell.runs = [
      press("Run", () => run(place), `Run cell ${number}`),
      press("Run all to here", () => run(place, { anew: true }), `Run all to here, cell ${number}`),
    ];
    if (!place) cell.runs.pop(); // the same
    bar.append(...cell.runs, cell.edit, cell.reset, cell.stop, said, loading);
    (fold ?? source).after(output);
    (fold ? output : source).after(bar);
    if (fold) box.append(fold);
    if (edits[number]?.recorded === recorded) {
      open(edits[number].code);
      cell.reset.hidden = false;
    }
    return cell;
  }

  // Run a cell, after those above it that this Python has not run; or all to it, from an empty namespace.
  async function run(last, { anew = false } = {}) {
    if (running) return;
    running = true;
    const buttons = [
      ...document.querySelectorAll(".cell-note button"),
      ...cells.flatMap((cell) => cell.runs),
    ];
    for (const one of buttons) one.ariaDisabled = "true"; // they keep the focus
    if (anew) for (const cell of cells) cell.ran = undefined;
    const { life } = python;
    const due = cells
      .slice(0, last + 1)
      .filter((cell, place) => place === last || cell.ran !== life);
    for (const cell of due) cell.say("Waits …");
    python.start();
    for (const [place, cell] of due.entries()) {
      if (await runOne(cell, anew && !place)) continue;
      for (const other of due.slice(place + 1)) other.say("");
      break;
    }
    running = false;
    for (const one of buttons) one.ariaDisabled = null;
  }

  async function runOne(cell, fresh) {
    const { output, alts } = cell;
    const alt = cell.changed()
      ? () => "Drawn by the edited code"
      : (place) => alts[place] ?? "Drawn by this cell";
    let shown = false,
      pictures = 0,
      stream;
    // what was there before goes when something new comes, so that the page does not jump
    function add(node) {
      if (!shown) output.replaceChildren();
      shown = true;
      if (node) output.append(node);
      return node;
    }
    const text = (kind, content) => add(block(kind, content)).querySelector("pre");
    const put = (what) => {
      if (what.printed) {
        stream ??= text("stream", "");
        stream.append(what.printed);
        return;
      }
      if (what.cut)
        return text("stream", `Only the first ${whole(what.cut)} characters are shown.`);
      stream = undefined;
      if (what.picture)
        add(framed(picture(what, alt(pictures++)), cell.changed() ? null : cell.kept));
      else if (what.value !== undefined) text("text_plain", what.value);
      else if (what.html !== undefined) add(html(what));
    };
    cell.box.classList.add("used");
    cell.say(python.there ? "Running …" : "Waiting for Python …");
    output.style.minHeight = `${output.offsetHeight}px`;
    const found = await python.ask(
      { kind: "cell", number: cell.number, code: cell.code(), fresh },
      {
        began() {
          cell.say("Running …");
          cell.stop.hidden = false;
        },
        shown: put,
      },
    );
    add();
    output.style.minHeight = "";
    cell.box.classList.remove("used");
    if (cell.stop === document.activeElement) cell.runs[0].focus();
    cell.stop.hidden = true;
    cell.ran = found.stopped ? undefined : python.life;
    if (found.text) text("traceback", found.text);
    const seconds = found.seconds < 0.1 ? "at once" : `in ${found.seconds?.toFixed(1)} s`;
    cell.say(found.passed ? `Ran ${seconds}` : found.stopped ? "Stopped" : "Ended with an error");
    cell.box.dataset.state = found.passed ? "ran" : "failed";
    return found.passed;
  }

  // An output of text as the page shows the recorded ones.
  function block(kind, content) {
    const box = make("div", "", `output ${kind}`),
      inner = make("div", "", "highlight"),
      pre = make("pre");
    pre.append(content);
    inner.append(pre);
    box.append(inner);
    return box;
  }

  function framed(image, kept) {
    if (!kept) return image;
    const box = make("div", "", "pictures"),
      copy = kept.cloneNode(true);
    copy.querySelector("img").src = image.src;
    box.append(image, copy);
    return box;
  }

  function picture({ picture: data, width, height }, alt) {
    return Object.assign(new Image(width, height), { alt, src: `data:image/png;base64,${data}` });
  }

  // Rich output, and the sliders that change it.
  function html(what) {
    const box = make("div", "", "output text_html"),
      view = make("div");
    view.innerHTML = what.html;
    box.append(view);
    if (!what.sliders) return box;
    const { life } = python;
    what.sliders.forEach(({ name, stops, at }, slider) => {
      const label = make("label", name, "cell-slider"),
        most = stops.length - 1,
        range = make("input", "", "", { type: "range", min: 0, max: most, value: at }),
        value = make("span", stops[at]);
      range.ariaValueText = stops[at];
      let moving = false;
      range.addEventListener("input", async () => {
        value.textContent = stops[range.value];
        range.ariaValueText = stops[range.value];
        if (moving) return;
        moving = true;
        for (let drawn; drawn !== range.value;) {
          // until what is shown is what is set
          if (python.life !== life) return box.replaceWith(stale());
          drawn = range.value;
          const found = await python.ask({
            kind: "set",
            view: what.view,
            slider,
            at: Number(drawn),
            code: "",
          });
          if (found.html) view.innerHTML = found.html;
        }
        moving = false;
      });
      label.append(range, value);
      view.before(label);
    });
    return box;
  }

  const stale = () => block("text_plain", "Python has been started anew: run this cell again.");
})();
