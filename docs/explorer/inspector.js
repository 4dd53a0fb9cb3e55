// The adapter inspector: files that are dropped are read here, looked into, checked, compared, and cut to another rank.
(() => {
  "use strict";

  const form = document.getElementById("inspector");
  if (!form || !window.loraAdapter) return;

  const { inspecting, planned, resize } = window.loraAdapter;
  const { check, grouped, overlapping } = window.loraChecking;
  const { runtimes } = window.loraAdapters;
  const ROW = 16, BAR = 70;
  const SQUARES = 64; // of singular values in a row, at most
  const MOMENT = 30; // milliseconds of work before the page may do something else
  const NAMES = { F64: "float64", F32: "float32", F16: "float16", BF16: "bfloat16" };
  const EXAMPLES = { first: "example-adapter", second: "austen/genesis-by-peft" };
  const find = (selector) => form.querySelector(selector);
  const part = (name) => form.elements.namedItem(name);
  const show = (name, text) => { find(`[data-show="${name}"]`).textContent = text; };
  const svg = (tag, attributes, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const digits = (x) => (x === undefined || x === null ? "" : Number.isInteger(x) ? String(x) : x.toPrecision(4));
  const bytes = (n) => (n < 1e6 ? `${(n / 1e3).toFixed(1)} kB` : `${(n / 1e6).toFixed(2)} MB`);
  const tail = (name, most) => (name.length > most ? `…${name.slice(1 - most)}` : name);
  const percent = (x) => (x === undefined ? "" : `${(100 * x).toFixed(1)} %`);

  const opened = { first: undefined, second: undefined };
  const runs = { first: 0, second: 0 }; // what is asked for later stops what came before

  // Work that is cut into steps: between them the page stays alive. Answers nothing if something else was asked for.
  async function slowly(walk, current, say) {
    let share = 0;
    for (let begun = performance.now(); ;) {
      const { value, done } = walk.next();
      if (done) return value;
      share = value ?? share;
      if (performance.now() - begun < MOMENT) continue;
      say(`Computing … ${Math.round(100 * share)} %`);
      await new Promise((resolve) => { setTimeout(resolve); });
      if (!current()) return undefined;
      begun = performance.now();
    }
  }

  async function open(files, slot) {
    const mine = ++runs[slot], current = () => mine === runs[slot];
    const place = slot === "first" ? "message" : "compared";
    const say = (text) => show(place, text);
    if (slot === "first") runs.second += 1;
    say("Reading …");
    try {
      const adapter = await window.loraFormats.open(files);
      if (!current()) return;
      const rows = await slowly(inspecting(adapter), current, say);
      if (!rows) return;
      opened[slot] = { adapter, rows };
      if (slot === "first") draw();
      else await compare(current, say);
    } catch (error) {
      if (!current()) return;
      opened[slot] = undefined;
      find(slot === "first" ? ".inspector-found" : ".inspector-both").hidden = true;
      say(`Refused: ${error.message}.`);
    }
  }

  function draw() {
    const { adapter, rows } = opened.first, { modules, full, config } = adapter;
    const ranks = [...new Set(rows.map((row) => row.rank))].sort((a, b) => a - b);
    const tensors = [...modules.values()].flatMap((module) => Object.values(module.parts)).concat(...[full, adapter.rows].map((each) => [...each.values()]));
    const known = rows.filter((row) => row.rank_for_99 !== undefined);
    show("modules", rows.length.toLocaleString("en"));
    show("numbers", tensors.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0).toLocaleString("en"));
    show("rank", ranks.length > 3 ? `${ranks[0]} to ${ranks.at(-1)}` : ranks.join(", "));
    show("rank for 99 %", known.length ? digits(known.reduce((sum, row) => sum + row.rank_for_99, 0) / known.length) : "unknown");
    show("dtype", `${{ peft: "PEFT", gguf: "GGUF", mlx: "mlx-lm" }[adapter.form]}, ${[...new Set(tensors.map(({ dtype }) => NAMES[dtype]))].join(", ")}`);
    show("base", typeof config.base_model_name_or_path === "string" && config.base_model_name_or_path ? config.base_model_name_or_path : "not said");
    const odd = rows.filter((row) => row.status !== "ok").length, replaced = full.size + adapter.rows.size;
    const extra = replaced ? ` ${replaced} ${replaced > 1 ? "tensors are" : "tensor is"} replaced in full.` : "";
    show("message", (odd ? `${odd} of ${rows.length} modules do nothing or are not finite.` : "All modules are finite and do something.") + extra);
    figure(rows);
    table(".inspector-table", COLUMNS, rows);
    checked(adapter);
    opened.second = undefined;
    find(".inspector-both").hidden = true;
    show("compared", "");
    find(".inspector-found").hidden = false;
    part("cut").max = ranks.at(-1);
    const asked = Number(new URLSearchParams(location.search).get("r"));
    part("cut").value = asked >= 1 && asked <= ranks.at(-1) ? asked : ranks.at(-1);
    cut();
  }

  function figure(rows) {
    const picture = find(".inspector-figure");
    const [width, letters] = form.clientWidth < 500 ? [330, 20] : [480, 34], right = 5.6 * letters, left = right + BAR + 12;
    picture.setAttribute("viewBox", `0 0 ${width} ${ROW * rows.length + 4}`);
    const strongest = Math.max(...rows.map((row) => row.norm || 0)) || 1;
    picture.replaceChildren(...rows.flatMap((row, i) => {
      const y = i * ROW + 2, found = [svg("text", { x: right, y: y + 11, "text-anchor": "end" }, tail(row.name, letters))];
      if (row.status !== "ok") return [...found, svg("text", { x: right + 6, y: y + 11 }, row.status)];
      found.push(svg("rect", { class: "norm", x: right + 6, y: y + 3, width: (BAR * row.norm) / strongest, height: ROW - 6 }));
      const step = Math.min(12, (width - left - 4) / row.s.length), each = Math.ceil(row.s.length / SQUARES);
      row.s.forEach((x, j) => j % each || found.push(svg("rect", {
        class: "value", x: left + j * step, y: y + 3, width: each * step * 0.85, height: ROW - 6,
        opacity: Math.max(0.06, x / row.s[0]),
      })));
      const mark = left + row.rank_for_99 * step - step * 0.08;
      found.push(svg("line", { class: "enough", x1: mark, x2: mark, y1: y + 1, y2: y + ROW - 1 }));
      return found;
    }));
  }

  // ---- tables: a column has a heading, its text for a row, and whether that is a number

  const COLUMNS = [
    ["module", (row) => row.name], ["status", (row) => row.status], ["rank", (row) => row.rank, true],
    ["scale", (row) => digits(row.scale), true], ["norm", (row) => digits(row.norm), true], ["share", (row) => percent(row.share), true],
    ["effective rank", (row) => digits(row.effective_rank), true], ["stable rank", (row) => digits(row.stable_rank), true],
    ["rank for 99 %", (row) => digits(row.rank_for_99), true], ["excess rank", (row) => digits(row.excess_rank), true],
  ];
  const CHECKED = [
    ["program", (row) => row[0]], ["modules", (row) => row[1]], ["status", (row) => row[2]],
    ["scale error", (row) => row[3], true], ["why", (row) => row[4]], ["fix", (row) => row[5]],
  ];
  const of = (row, slot) => (row.module === "all" ? whole(slot) : opened[slot].byName.get(row.module));
  const whole = (slot) => ({ norm: Math.sqrt(opened[slot].rows.reduce((sum, { norm = 0 }) => sum + norm * norm, 0)) });
  const PAIRS = [
    ["module", (row) => row.module],
    ["overlap", (row) => digits(row.overlap), true], ["cosine", (row) => digits(row.cosine), true],
    ["inputs", (row) => degrees(row.inputs), true], ["outputs", (row) => degrees(row.outputs), true],
    ...["rank", "scale", "norm"].map((what) => [what, (row) => ["first", "second"].map((slot) => digits(of(row, slot)[what])).filter(Boolean).join(" | "), true]),
  ];
  const degrees = (x) => `${x.toFixed(1)}°`;

  function table(selector, columns, rows, dress = () => {}) {
    const line = (tag, texts, scope) => {
      const tr = document.createElement("tr");
      texts.forEach((text, i) => {
        const cell = Object.assign(document.createElement(tag), { textContent: text, className: columns[i][2] ? "number" : "" });
        if (scope) cell.scope = scope;
        tr.append(cell);
      });
      return tr;
    };
    const head = document.createElement("thead"), body = document.createElement("tbody");
    head.append(line("th", columns.map(([heading]) => heading), "col"));
    for (const row of rows) {
      const tr = line("td", columns.map(([, text]) => text(row)));
      dress(row, tr);
      body.append(tr);
    }
    find(selector).replaceChildren(head, body);
  }

  // ---- what programs make of it

  function checked(adapter) {
    const rows = check(adapter), fails = new Set(rows.filter(({ status }) => status !== "fine").map(({ runtime }) => runtime));
    const fine = Object.keys(runtimes).filter((name) => !fails.has(name));
    show("verdict", `${fine.length ? `${fine.join(", ")} would run it as it is` : "no program would run it as it is"}${fails.size ? `; not so ${[...fails].join(", ")}` : ""}.`);
    table(".inspector-check", CHECKED, grouped(rows), (row, tr) => { tr.children[2].dataset.status = row[2]; });
    find(".inspector-sources").replaceChildren(...Object.entries(runtimes).map(([name, { version, date, source }]) =>
      Object.assign(document.createElement("li"), { textContent: `${name} ${version}, ${date}: ${source}` })));
  }

  // ---- two adapters

  async function compare(current, say) {
    const [first, second] = [opened.first, opened.second];
    const pairs = await slowly(overlapping(first.adapter, second.adapter), current, say);
    if (!pairs) return;
    for (const each of [first, second]) each.byName = new Map(each.rows.map((row) => [row.name, row]));
    const all = pairs.at(-1), shared = pairs.length - 1;
    table(".inspector-pairs", PAIRS, [all, ...pairs.slice(0, -1)], (row, tr) => {
      tr.children[1].classList.add("bar");
      tr.children[1].style.setProperty("--share", `${100 * row.overlap}%`);
    });
    const bases = [first, second].map(({ adapter }) => adapter.config.base_model_name_or_path).filter((name) => typeof name === "string" && name);
    const apart = new Set(bases).size > 1 ? ` They name different bases: ${bases.join(" and ")}.` : "";
    say(`${shared} modules in both, of ${first.rows.length} and ${second.rows.length}. Overlap ${digits(all.overlap)}, cosine ${digits(all.cosine)}.${apart}`);
    find(".inspector-both").hidden = false;
  }

  // ---- another rank

  function cut() {
    const rank = Number(part("cut").value);
    show("r", rank);
    const address = new URL(location);
    address.searchParams.set("r", rank);
    history.replaceState(null, "", address);
    let plan;
    try {
      plan = planned(opened.first.adapter, rank);
      show("error", `${(100 * plan.error).toPrecision(3)} %`);
      show("size", bytes(plan.size));
    } catch (error) {
      show("error", "not to be had");
      show("size", error.message);
    }
    for (const name of ["weights", "settings"]) part(name).disabled = !plan;
  }

  function download(name, make) {
    const { adapter } = opened.first, link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([make(adapter, Number(part("cut").value))]));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  // ---- files

  const entry = (item) => new Promise((resolve, reject) => { item.file(resolve, reject); });

  // The files of an adapter in a folder, as lora-np finds them: PEFT's, else mlx-lm's, else one of GGUF
  async function inside(folder) {
    const found = new Map(), reader = folder.createReader();
    for (;;) {
      const some = await new Promise((resolve, reject) => { reader.readEntries(resolve, reject); });
      if (!some.length) break;
      for (const item of some) if (item.isFile) found.set(item.name, item);
    }
    const weights = found.get("adapter_model.safetensors") ?? found.get("adapters.safetensors");
    const chosen = weights ? [weights, found.get("adapter_config.json")] : [...found.values()].filter(({ name }) => name.endsWith(".gguf"));
    return Promise.all(chosen.filter(Boolean).map(entry));
  }

  async function dropped({ items, files }) {
    const entries = [...items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const plain = [...files]; // both are gone after the first wait
    const folders = entries.filter((each) => each.isDirectory);
    if (!folders.length) return plain;
    return (await Promise.all(entries.map((each) => (each.isDirectory ? inside(each) : entry(each))))).flat();
  }

  async function example(slot) {
    const root = new URL(document.documentElement.dataset.content_root || "./", location), mine = ++runs[slot];
    const files = await Promise.all(["adapter_model.safetensors", "adapter_config.json"].map(async (name) => {
      const answer = await fetch(new URL(`_static/${EXAMPLES[slot]}/${name}`, root));
      return new File([await answer.blob()], name);
    }));
    if (mine === runs[slot]) open(files, slot); // unless files were chosen meanwhile
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  for (const slot of ["first", "second"]) {
    const input = part(slot), drop = input.closest(".inspector-drop");
    input.addEventListener("change", () => {
      const files = [...input.files];
      input.value = ""; // so that the same files can be chosen again
      if (files.length) open(files, slot);
    });
    drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
    drop.addEventListener("dragleave", () => drop.classList.remove("over"));
    drop.addEventListener("drop", async (event) => {
      event.preventDefault();
      drop.classList.remove("over");
      open(await dropped(event.dataTransfer), slot);
    });
  }
  part("cut").addEventListener("input", cut);
  part("weights").addEventListener("click", () => download("adapter_model.safetensors", (adapter, rank) => resize(adapter, rank).file));
  part("settings").addEventListener("click", () => download("adapter_config.json", (adapter, rank) => JSON.stringify(planned(adapter, rank).config, null, 2)));
  part("example").addEventListener("click", () => example("first"));
  part("other").addEventListener("click", () => example("second"));
})();
