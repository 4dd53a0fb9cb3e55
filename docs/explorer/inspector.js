// The adapter inspector: the package looks into files that are dropped. Its Python runs in the page; what
// stands in a header is shown until it answers.
(() => {
  "use strict";

  const form = document.getElementById("inspector");
  if (!form || !window.loraPage) return;

  const { loraPage: python, loraSafetensors: safetensors } = window;
  const ROW = 16,
    BAR = 70;
  const LEVELS = 16; // of opacity
  const SQUARES = 64; // of singular values in a row, at most
  const EXAMPLES = { first: "example-adapter", second: "austen/genesis-by-peft" };
  const PLACES = { first: "message", second: "compared" };
  const { address, make, set, svg, whole } = window.loraPrograms;
  const { find, part, show } = window.loraPrograms.parts(form);
  const shown = (x) =>
    typeof x === "number" && !Number.isInteger(x) ? x.toPrecision(4) : String(x ?? "");
  const bytes = (n) =>
    n < 2 ** 20 ? `${(n / 2 ** 10).toFixed(1)} KiB` : `${(n / 2 ** 20).toFixed(2)} MiB`;
  const tail = (name, most) => (name.length > most ? `…${name.slice(1 - most)}` : name);
  const range = (numbers) => {
    const sorted = [...new Set(numbers)].sort((a, b) => a - b);
    return sorted.length > 3 ? `${sorted[0]} to ${sorted.at(-1)}` : sorted.join(", ");
  };

  const given = {},
    opened = {}; // files, and what the package says of them, by place
  const working = {}; // what stops the work, by place; of another rank, "cut"
  let measuring; // the worker that measures before Python is there

  // ---- opening

  // A new file stops the work on the old one: the answer to `what`, or nothing if it was stopped.
  async function ask(slot, what, files) {
    const controller = (working[slot] = new AbortController());
    form.classList.add("used");
    const answer = await python.ask({ ...what, files }, { signal: controller.signal });
    if (controller.signal.aborted) return undefined;
    form.classList.remove("used");
    return answer;
  }

  function stop(slot) {
    for (const each of slot === "first" ? ["first", "second", "cut"] : ["second", "cut"])
      working[each]?.abort();
  }

  async function open(files, slot) {
    stop(slot);
    if (slot === "first") measured();
    const say = (text) => show(PLACES[slot], text);
    given[slot] = files.map((file) => ({
      name: file.name.replace(/ ?\(\d+\)(?=\.\w+$)/, ""),
      data: file,
    }));
    opened[slot] = opened.second = undefined;
    if (slot === "first")
      for (const name of ["picture", "found"]) find(`.inspector-${name}`).hidden = true;
    find(".inspector-both").hidden = true; // of an earlier pair
    say("Reading …");
    if (slot === "first") glance();
    const { first, second } = given;
    const answer = await (slot === "first"
      ? ask(slot, { kind: "inspect", place: "first" }, { first })
      : ask(slot, { kind: "compare" }, { first, second }));
    if (!answer) return;
    if (slot === "first" && !answer.stopped) measured();
    if (answer.stopped) say(`${answer.text} The command above does the same.`);
    else if (answer.refused) say(`Refused: ${answer.refused.replace(/\.$/, "")}.`);
    else {
      opened[slot] = answer;
      if (slot === "first") draw();
      else compare(say);
    }
  }

  // What the headers say, at once; and the singular values, before Python is there
  async function glance() {
    const mine = given.first,
      box = find(".inspector-glance");
    box.hidden = true;
    const files = mine.filter(({ name }) => name.endsWith(".safetensors"));
    try {
      const headers = files.map(async ({ data }) =>
        (await safetensors.header(data)).map((tensor) => ({ ...tensor, data })),
      );
      const tensors = (await Promise.all(headers)).flat();
      if (mine !== given.first || !tensors.length) return;
      const modules = safetensors.modules(tensors),
        types = [...new Set(tensors.map(({ dtype }) => dtype))];
      const size = files.reduce((sum, { data }) => sum + data.size, 0);
      box.textContent =
        `Its header: ${whole(tensors.length)} tensors of ${types.join(", ")}, ${bytes(size)}` +
        (modules.size
          ? `; ${whole(modules.size)} modules of rank ${range([...modules.values()].map(({ A }) => A.r))}.`
          : ".");
      box.hidden = false;
      if (modules.size && types.every((type) => /^B?F16$|^F(32|64)$/.test(type)))
        await measure(mine, modules);
    } catch {
      /* the package says what is wrong with it */
    }
  }

  async function measure(mine, modules) {
    const worker = await python.worker(["_static/safetensors.js", "_static/spectra.js"]);
    if (mine !== given.first || opened.first) return worker.terminate();
    measuring = worker;
    const bar = find(".inspector-measuring");
    bar.hidden = false;
    bar.querySelector("progress").value = 0;
    worker.addEventListener("error", measured);
    worker.addEventListener("message", ({ data: { done, found } }) => {
      if (!found) return (bar.querySelector("progress").value = done);
      measured();
      const rows = found
        .filter(([, s]) => s[0] > 0)
        .map(([name, s]) => ({ name, s, status: "ok", rank_for_99: enough(s) }));
      if (!rows.length) return;
      figure(rows, Object.fromEntries(found));
      const ranks = range(rows.map((row) => row.rank_for_99));
      find(".inspector-glance").append(` A rank of ${ranks} keeps 99 % of the squared norm.`);
    });
    const order = new Intl.Collator("en", { numeric: true });
    worker.postMessage([...modules].sort(([one], [other]) => order.compare(one, other)));
  }

  // How many values hold all but 1 % of the sum of squares
  function enough(s) {
    const all = s.reduce((sum, x) => sum + x * x, 0);
    let rest = all,
      count = 0;
    while (rest > all / 100) rest -= s[count++] ** 2;
    return count;
  }

  function measured() {
    measuring?.terminate();
    measuring = undefined;
    find(".inspector-measuring").hidden = true;
  }

  // ---- one adapter

  function draw() {
    const { rows, contents, format, words, notes, warned, spectra } = opened.first,
      ranks = rows.map(({ rank }) => rank);
    const known = rows.filter((row) => row.rank_for_99 !== null).map((row) => row.rank_for_99);
    show("modules", whole(rows.length));
    show("numbers", whole(contents.parameters));
    show("rank", range(ranks));
    show(
      "rank for 99 %",
      known.length ? shown(known.reduce((a, b) => a + b, 0) / known.length) : "unknown",
    );
    show("dtype", `${format}, ${Object.keys(contents.dtype).join(", ")}`);
    show("base", contents.base || "not said");
    show("message", notes[0] ?? "All modules are finite and do something.");
    find(".inspector-notes").replaceChildren(
      ...[...notes, ...warned].map((note) => make("li", note)),
    );
    figure(rows, spectra);
    table(".inspector-config", ["property", "value"], words);
    table(
      ".inspector-modules",
      opened.first.headings,
      rows.map((row) => Object.values(row)),
    );
    checked(opened.first.check);
    show("compared", "");
    find(".inspector-found").hidden = false;
    const asked = Number(new URLSearchParams(location.search).get("r")),
      most = Math.max(1, ...ranks);
    part("cut").max = most;
    part("cut").value = asked >= 1 && asked <= most ? asked : most;
    cut();
  }

  // Squares of about the same strength are one path.
  function figure(rows, spectra) {
    const picture = find(".inspector-figure"),
      [width, letters] = form.clientWidth < 500 ? [330, 20] : [480, 34],
      right = 5.6 * letters,
      left = right + BAR + 12,
      strongest = Math.max(...rows.map((row) => Number(row.norm) || 0)) || 1,
      squares = Array(LEVELS + 1).fill("");
    const box = (x, y, w) =>
      `M${x.toFixed(1)} ${y + 3}h${w.toFixed(2)}v${ROW - 6}h${(-w).toFixed(2)}z`;
    let norms = "",
      marks = "";
    const texts = rows.flatMap(({ name, status, norm, rank_for_99: mark }, i) => {
      const y = i * ROW + 2,
        said = (x, text, end) => svg("text", { x, y: y + 11, "text-anchor": end }, text);
      const named = said(right, tail(name, letters), "end"),
        s = spectra[name].map(Number);
      if (status !== "ok" || !s.length) return [named, said(right + 6, status, "start")];
      const step = Math.min(12, (width - left - 4) / s.length),
        each = Math.ceil(s.length / SQUARES);
      if (norm) norms += box(right + 6, y, (BAR * norm) / strongest);
      for (let j = 0; j < s.length; j += each)
        squares[Math.ceil((LEVELS * s[j]) / s[0])] += box(left + j * step, y, each * step * 0.85);
      marks += `M${(left + (mark - 0.08) * step).toFixed(1)} ${y + 1}v${ROW - 2}`;
      return [named];
    });
    const path = (name, d, opacity = 1) => svg("path", { class: name, d, opacity });
    set(picture, { viewBox: `0 0 ${width} ${ROW * rows.length + 4}` });
    picture.replaceChildren(
      ...texts,
      path("norm", norms),
      ...squares.map((d, level) => path("value", d, Math.max(0.06, level / LEVELS))),
      path("enough", marks),
    );
    find(".inspector-picture").hidden = !rows.length;
  }

  // Headings and rows of what a cell shows: text, or a number; `dress` may change a row of the page.
  function table(selector, headings, rows, dress = () => {}) {
    const line = (tag, cells) => {
      const tr = make("tr");
      cells.forEach((x, i) => {
        const share = tag === "td" && headings[i] === "share" && typeof x === "number";
        const cell = make(tag, share ? `${(100 * x).toFixed(1)} %` : shown(x));
        if (tag === "th") cell.scope = "col";
        else cell.dataset.heading = headings[i];
        if (rows.some((row) => typeof row[i] === "number" || /°$/.test(row[i])))
          cell.className = "number";
        tr.append(cell);
      });
      return tr;
    };
    const head = make("thead"),
      body = make("tbody");
    head.append(line("th", headings));
    for (const row of rows) {
      const tr = line("td", row);
      dress(row, tr);
      body.append(tr);
    }
    find(selector).replaceChildren(head, body);
  }

  // ---- what programs make of it

  function checked({ headings, rows, programs, notes }) {
    const names = (wanted) =>
      Object.keys(programs)
        .filter((name) => programs[name] === wanted)
        .join(", ");
    const fine = names(true),
      fails = names(false);
    show(
      "verdict",
      `${fine || "no program"} would run it as it is${fails ? `; not so ${fails}` : ""}.`,
    );
    table(".inspector-check", headings, rows, (row, tr) => {
      tr.children[headings.indexOf("status")].dataset.status = row[2];
    });
    find(".inspector-sources").replaceChildren(...notes.map((note) => make("li", note)));
  }

  // ---- two adapters

  function compare(say) {
    const { first, second } = opened,
      { pairs, diff } = second,
      [all, ...each] = pairs.rows;
    table(".inspector-pairs", pairs.headings, pairs.rows, ([, share], tr) => {
      tr.children[1].classList.add("bar");
      tr.children[1].style.setProperty("--share", `${100 * share}%`);
    });
    table(".inspector-diff", diff.headings, diff.rows);
    find(".inspector-verdict").textContent = diff.notes.join(" ");
    const bases = [first, second]
      .map(({ contents }) => contents.base)
      .filter((name) => typeof name === "string" && name);
    const apart =
      new Set(bases).size > 1 ? ` They name different bases: ${bases.join(" and ")}.` : "";
    say(
      `${each.length} modules in both, of ${first.rows.length} and ${second.rows.length}. ` +
        `Overlap ${shown(all[1])}, cosine ${shown(all[2])}.${apart}`,
    );
    find(".inspector-both").hidden = false;
  }

  // ---- another rank

  let cutting = false,
    made; // made: the new adapter

  async function cut() {
    const slider = part("cut"),
      { first } = given;
    show("r", slider.value);
    const here = new URL(location);
    here.searchParams.set("r", slider.value);
    history.replaceState(null, "", here);
    if (cutting) return;
    cutting = true;
    // until what is shown is what is asked
    for (let rank; rank !== slider.value && opened.first && first === given.first;) {
      rank = slider.value;
      made = undefined;
      working.cut = new AbortController();
      const what = { kind: "cut", rank: Number(rank), files: { first } };
      const answer = await python.ask(what, working.cut);
      if (first !== given.first) break;
      made = answer.file && answer;
      show("error", made ? `${(100 * made.error).toPrecision(3)} %` : "not to be had");
      show("size", made ? bytes(made.size) : (answer.refused ?? answer.text));
      for (const name of ["weights", "settings"]) part(name).disabled = !made;
    }
    cutting = false;
    if (opened.first && first !== given.first) cut();
  }

  // ---- files

  const entry = (item) =>
    new Promise((resolve, reject) => {
      item.file(resolve, reject);
    });

  async function inside(folder) {
    const found = [],
      reader = folder.createReader();
    for (;;) {
      const some = await new Promise((resolve, reject) => {
        reader.readEntries(resolve, reject);
      });
      if (!some.length) return Promise.all(found.map(entry));
      found.push(...some.filter((item) => item.isFile));
    }
  }

  async function dropped({ items, files }) {
    const entries = [...items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const plain = [...files]; // both are gone after the first wait
    if (!entries.some((each) => each.isDirectory)) return plain;
    return (
      await Promise.all(entries.map((each) => (each.isDirectory ? inside(each) : entry(each))))
    ).flat();
  }

  async function example(slot) {
    const { first, second } = given;
    python.start();
    const files = await Promise.all(
      ["adapter_model.safetensors", "adapter_config.json"].map(async (name) => {
        const answer = await fetch(address(`_static/${EXAMPLES[slot]}/${name}`));
        return new File([await answer.blob()], name);
      }),
    );
    // unless files were chosen meanwhile
    if (first === given.first && second === given.second) open(files, slot);
  }

  show("megabytes", python.size);
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const slot of ["first", "second"]) {
    const input = part(slot),
      drop = input.closest(".inspector-drop");
    input.addEventListener("focus", python.start); // while files are looked for
    input.addEventListener("change", () => {
      const files = [...input.files];
      input.value = ""; // so that the same files can be chosen again
      if (files.length) open(files, slot);
    });
    drop.addEventListener("dragover", (event) => {
      event.preventDefault();
      python.start();
      drop.classList.add("over");
    });
    drop.addEventListener("dragleave", () => drop.classList.remove("over"));
    drop.addEventListener("drop", async (event) => {
      event.preventDefault();
      drop.classList.remove("over");
      open(await dropped(event.dataTransfer), slot);
    });
  }
  part("cut").addEventListener("input", cut);
  part("weights").addEventListener("click", () =>
    python.download("adapter_model.safetensors", made.bytes),
  );
  part("settings").addEventListener("click", () =>
    python.download("adapter_config.json", made.config),
  );
  part("example").addEventListener("click", () => example("first"));
  part("other").addEventListener("click", () => example("second"));
})();
