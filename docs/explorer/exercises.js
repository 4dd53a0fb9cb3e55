// Exercises that are run and checked in the page: Python is in a worker, and what is written is remembered
// here.
(() => {
  "use strict";

  const forms = [...document.querySelectorAll("form.exercise")];
  if (!forms.length || !window.loraPage) return;
  const python = window.loraPage,
    { parts, whole } = window.loraPrograms;

  const SECONDS = 60; // for one answer, from when its code begins to run; then Python is started anew

  const remember = (name, what) => python.remember(name, { ...python.recall(name), ...what });

  for (const form of forms) {
    const { find, part } = parts(form);
    const name = form.dataset.exercise,
      area = part("code"),
      stub = area.defaultValue;
    const shown = (what) => find(`[data-show=${what}]`);
    const points = shown("points"),
      outcome = shown("outcome"),
      printed = shown("printed"),
      cut = shown("cut");
    const earlier = python.recall(name);
    if (earlier.code) area.value = earlier.code;
    const write = python.field(area, { run: () => answer("run"), check: () => answer("check") });
    if (earlier.passed) points.textContent = "Solved";
    const keep = () => remember(name, { code: area.value });

    function busy(is) {
      for (const which of ["run", "check"]) part(which).disabled = is;
      part("stop").hidden = true; // until the code runs
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
      if (part(kind).disabled) return;
      keep();
      clear();
      busy(true);
      form.classList.add("used");
      say(python.there ? "Running …" : "Waiting for Python …");
      const before = form.dataset.needs
        .split(" ")
        .filter(Boolean)
        .map((other) => [
          other,
          forms.find((one) => one.dataset.exercise === other).elements.namedItem("code").value,
        ]);
      const found = await python.ask(
        { kind, name, code: area.value, before },
        {
          name,
          seconds: SECONDS,
          began() {
            say("Running …");
            part("stop").hidden = false;
          },
          shown(what) {
            printed.parentElement.hidden = false;
            if (what.cut) cut.textContent = `, the first ${whole(what.cut)} characters`;
            else printed.append(what.printed);
          },
        },
      );
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
      area.addEventListener(
        "input",
        () => {
          // so that Python is there when the answer is
          form.classList.add("used");
          python.start();
        },
        { once: true },
      );
    }
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      answer("check");
    });
    part("run").addEventListener("click", () => answer("run"));
    part("stop").addEventListener("click", () => python.stop("Stopped."));
    part("reset").addEventListener("click", () => {
      write(stub);
      clear();
      keep();
    });
  }

  window.loraExercises = {
    check: (name, code) => python.ask({ kind: "check", name, code, before: [] }),
  };
})();
