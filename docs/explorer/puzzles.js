// Puzzles that are checked in the page: a line each, remembered here, and the last page that can be shown to
// others.
(() => {
  "use strict";

  const forms = [...document.querySelectorAll("form.puzzle")];
  if (!forms.length || !window.loraPage) return;
  const python = window.loraPage,
    KEY = "puzzles",
    SECONDS = 60;

  const progress = python.recall(KEY); // by the puzzles' names: line, solved, attempts, hints
  const of = (name) => (progress[name] ??= {});
  function remember(name, what) {
    Object.assign(of(name), what);
    python.remember(KEY, progress);
  }

  // Sphinx may have put it below
  forms[0].closest("section").before(document.querySelector(".puzzle-progress"));
  const share = document.getElementById("puzzle-share"),
    text = document.getElementById("puzzle-text");
  const ending = document.getElementById("puzzle-ending"),
    train = ending.elements.namedItem("train");
  const trained = ending.querySelector("[data-show=state]");
  function count() {
    const names = forms.map((form) => form.dataset.puzzle),
      solved = names.filter((name) => of(name).solved);
    for (const name of names) {
      const square = document.querySelector(`[data-square=${name}]`);
      square.toggleAttribute("data-solved", Boolean(of(name).solved));
    }
    const said = `${solved.length} of ${names.length} solved`;
    train.disabled = solved.length < names.length;
    if (!train.disabled && trained.textContent.startsWith("Solve")) trained.textContent = "";
    document.querySelector(".puzzle-progress [data-show=done]").textContent = said;
    share.hidden = !solved.length;
    const hints = names.reduce((sum, name) => sum + (of(name).hints ?? 0), 0);
    const squares = names.map((name) => (of(name).solved ? "■" : "□")).join("");
    const address = location.href.split(/[?#]/)[0];
    const helped = `${hints} ${hints === 1 ? "hint" : "hints"}`;
    text.value = `LoRA puzzles: ${said}, with ${helped}\n${squares}\n${address}`;
  }

  share.addEventListener("submit", async (event) => {
    event.preventDefault();
    text.select();
    try {
      await navigator.clipboard.writeText(text.value);
      share.querySelector("[data-show=copied]").textContent = "Copied.";
    } catch {
      share.querySelector("[data-show=copied]").textContent =
        "Selected: copy it with your keyboard.";
    }
  });

  // The end: all lines train a language model, which says how far it is; and a card.
  const told = ending.querySelector("[data-show=outcome]"),
    halt = ending.elements.namedItem("stop");
  const save = ending.elements.namedItem("save");
  let card = "";
  ending.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (train.disabled) return;
    train.disabled = true;
    ending.classList.add("used");
    trained.textContent = "Waiting for Python …";
    const lines = Object.fromEntries(
      forms.map((form) => {
        const name = form.dataset.puzzle;
        return [name, of(name).right ?? of(name).line];
      }),
    );
    const prompt = ending.elements.namedItem("prompt").value;
    const found = await python.ask(
      { kind: "ending", lines, prompt },
      {
        name: "The training",
        began() {
          halt.hidden = false;
        },
        shown({ progress }) {
          if (progress) trained.textContent = progress;
        },
      },
    );
    halt.hidden = true;
    train.disabled = false;
    trained.textContent = found.passed ? "Trained" : "";
    told.hidden = false;
    told.dataset.kind = found.passed ? "right" : "wrong";
    if (found.html) told.innerHTML = found.html;
    else told.textContent = found.text;
    card = found.card ?? "";
    save.hidden = !card;
    if (card)
      told.prepend(Object.assign(new Image(), { src: picture(card), alt: found.text, width: 600 }));
  });
  halt.addEventListener("click", () => python.stop("Stopped."));
  const picture = (svg) => `data:image/svg+xml,${encodeURIComponent(svg)}`;
  save.addEventListener("click", async () => {
    // as a picture that every program shows
    const image = Object.assign(new Image(), { src: picture(card) });
    await image.decode();
    const canvas = Object.assign(document.createElement("canvas"), { width: 1200, height: 630 });
    canvas.getContext("2d").drawImage(image, 0, 0);
    canvas.toBlob((content) => python.download("lora-puzzles.png", content));
  });

  for (const form of forms) {
    const name = form.dataset.puzzle,
      area = form.elements.namedItem("code"),
      blank = area.defaultValue;
    const button = (which) => form.elements.namedItem(which);
    const shown = (what) => form.querySelector(`[data-show=${what}]`);
    const state = shown("state"),
      outcome = shown("outcome");
    if (of(name).line) area.value = of(name).line;
    const write = python.field(area, { run: check });
    const say = () => {
      state.textContent = of(name).solved ? "Solved" : "";
    };
    say();

    async function check() {
      if (button("check").disabled) return;
      remember(name, { line: area.value, attempts: (of(name).attempts ?? 0) + 1 });
      button("check").disabled = true;
      form.classList.add("used");
      state.textContent = python.there ? "Checking …" : "Waiting for Python …";
      const found = await python.ask(
        { kind: "puzzle", name, code: area.value },
        {
          name: "Your line",
          seconds: SECONDS,
          began() {
            state.textContent = "Checking …";
            button("stop").hidden = false;
          },
        },
      );
      button("check").disabled = false;
      button("stop").hidden = true;
      outcome.hidden = false;
      outcome.dataset.kind = found.passed ? "right" : "wrong";
      if (found.html) outcome.innerHTML = found.html;
      else outcome.textContent = found.text;
      if (found.passed) remember(name, { solved: true, right: area.value });
      say();
      count();
    }

    area.addEventListener("input", () => remember(name, { line: area.value }));
    if (!navigator.connection?.saveData)
      area.addEventListener(
        "focus",
        () => {
          form.classList.add("used");
          python.start(); // so that Python is there when the line is
        },
        { once: true },
      );
    area.addEventListener(
      "keydown",
      (event) => {
        // a puzzle is one line
        if (event.key === "Enter" && !event.isComposing) {
          event.preventDefault();
          event.stopImmediatePropagation();
          check();
        }
      },
      { capture: true },
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      check();
    });
    button("stop").addEventListener("click", () => python.stop("Stopped."));
    button("reset").addEventListener("click", () => {
      write(blank);
      outcome.hidden = true;
      remember(name, { line: "" });
    });
    let hint = form.nextElementSibling,
      place = 0;
    while (hint?.matches("details.fold")) {
      const number = ++place;
      hint.addEventListener(
        "toggle",
        () => {
          remember(name, { hints: Math.max(of(name).hints ?? 0, number) });
          count();
        },
        { once: true },
      );
      hint = hint.nextElementSibling;
    }
  }
  count();
})();
