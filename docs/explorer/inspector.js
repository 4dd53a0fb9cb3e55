// The adapter inspector: files that are dropped are read here, looked into, and cut to another rank.
(() => {
  "use strict";

  const form = document.getElementById("inspector");
  if (!form || !window.loraAdapter) return;

  const { read, inspect, resize } = window.loraAdapter;
  const ROW = 16, NAME = 190, BAR = 70, LEFT = NAME + BAR + 12, WIDTH = 480;
  const part = (name) => form.elements.namedItem(name);
  const show = (name, text) => { form.querySelector(`[data-show="${name}"]`).textContent = text; };
  const svg = (tag, attributes, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const digits = (x) => (x === undefined ? "" : Number.isInteger(x) ? String(x) : x.toPrecision(4));
  const bytes = (n) => (n < 1e6 ? `${(n / 1e3).toFixed(1)} kB` : `${(n / 1e6).toFixed(2)} MB`);
  const tail = (name) => (name.length > 34 ? `…${name.slice(-33)}` : name);

  let adapter, made;

  async function open(files) {
    const weights = files.find((file) => file.name.endsWith(".safetensors"));
    const settings = files.find((file) => file.name.endsWith(".json"));
    if (!weights || !settings) {
      show("message", "Choose both files at once: adapter_model.safetensors and adapter_config.json.");
      return;
    }
    show("message", "Reading …");
    try {
      let config;
      try {
        config = JSON.parse(await settings.text());
      } catch {
        throw new Error(`${settings.name} is not JSON`);
      }
      adapter = read(await weights.arrayBuffer(), config);
      draw(inspect(adapter), config);
    } catch (error) {
      adapter = undefined;
      form.querySelector(".inspector-found").hidden = true;
      show("message", `Refused: ${error.message}.`);
    }
  }

  function draw(rows, config) {
    const ranks = [...new Set(rows.map((row) => row.rank))].sort((a, b) => a - b);
    const tensors = [...adapter.modules.values()].flatMap((module) => Object.values(module.parts)).concat([...adapter.rest.values()]);
    const known = rows.filter((row) => row.needed !== undefined);
    show("modules", rows.length.toLocaleString("en"));
    show("numbers", tensors.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0).toLocaleString("en"));
    show("rank", ranks.length > 3 ? `${ranks[0]} to ${ranks.at(-1)}` : ranks.join(", "));
    show("needed", known.length ? digits(known.reduce((sum, row) => sum + row.needed, 0) / known.length) : "unknown");
    show("dtype", [...new Set(tensors.map(({ dtype }) => dtype))].join(", "));
    show("base", config.base_model_name_or_path || "not said");
    const odd = rows.filter((row) => row.status !== "ok").length;
    const extra = adapter.rest.size ? ` ${adapter.rest.size} tensors are replaced in full.` : "";
    show("message", (odd ? `${odd} of ${rows.length} modules do nothing or are not finite.` : "All modules are finite and do something.") + extra);
    figure(rows);
    table(rows);
    form.querySelector(".inspector-found").hidden = false;
    part("cut").max = ranks.at(-1);
    const asked = Number(new URLSearchParams(location.search).get("r"));
    part("cut").value = asked >= 1 && asked <= ranks.at(-1) ? asked : ranks.at(-1);
    cut();
  }

  function figure(rows) {
    const picture = form.querySelector(".inspector-figure");
    picture.setAttribute("viewBox", `0 0 ${WIDTH} ${ROW * rows.length + 4}`);
    const strongest = Math.max(...rows.map((row) => row.norm || 0)) || 1;
    picture.replaceChildren(...rows.flatMap((row, i) => {
      const y = i * ROW + 2, found = [svg("text", { x: NAME, y: y + 11, "text-anchor": "end" }, tail(row.name))];
      if (row.status !== "ok") return [...found, svg("text", { x: NAME + 6, y: y + 11 }, row.status)];
      found.push(svg("rect", { class: "norm", x: NAME + 6, y: y + 3, width: (BAR * row.norm) / strongest, height: ROW - 6 }));
      const step = Math.min(12, (WIDTH - LEFT - 4) / row.s.length);
      row.s.forEach((x, j) => found.push(svg("rect", {
        class: "value", x: LEFT + j * step, y: y + 3, width: step * 0.85, height: ROW - 6,
        opacity: Math.max(0.06, x / row.s[0]),
      })));
      const mark = LEFT + row.needed * step - step * 0.08;
      found.push(svg("line", { class: "enough", x1: mark, x2: mark, y1: y + 1, y2: y + ROW - 1 }));
      return found;
    }));
  }

  const COLUMNS = [
    ["module", (row) => row.name], ["status", (row) => row.status], ["rank", (row) => row.rank],
    ["scale", (row) => digits(row.scale)], ["norm", (row) => digits(row.norm)],
    ["share", (row) => (row.share === undefined ? "" : `${(100 * row.share).toFixed(1)}%`)],
    ["effective rank", (row) => digits(row.effective_rank)], ["stable rank", (row) => digits(row.stable_rank)],
    ["needed", (row) => digits(row.needed)], ["wasted", (row) => digits(row.wasted)],
  ];

  function table(rows) {
    const line = (tag, texts) => {
      const tr = document.createElement("tr");
      for (const text of texts) tr.append(Object.assign(document.createElement(tag), { textContent: text }));
      return tr;
    };
    form.querySelector(".inspector-table").replaceChildren(
      line("th", COLUMNS.map(([heading]) => heading)),
      ...rows.map((row) => line("td", COLUMNS.map(([, of]) => of(row)))),
    );
  }

  function cut() {
    const rank = Number(part("cut").value);
    show("r", rank);
    const address = new URL(location);
    address.searchParams.set("r", rank);
    history.replaceState(null, "", address);
    try {
      made = resize(adapter, rank);
    } catch (error) {
      made = undefined;
      show("error", "not finite");
      show("size", error.message);
    }
    for (const name of ["weights", "settings"]) part(name).disabled = !made;
    if (!made) return;
    show("error", `${(100 * made.error).toPrecision(3)} %`);
    show("size", bytes(made.file.length));
  }

  function download(name, content) {
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(new Blob([content])), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  const drop = form.querySelector(".inspector-drop");
  form.addEventListener("submit", (event) => event.preventDefault());
  part("files").addEventListener("change", () => open([...part("files").files]));
  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    open([...event.dataTransfer.files]);
  });
  part("cut").addEventListener("input", cut);
  part("weights").addEventListener("click", () => download("adapter_model.safetensors", made.file));
  part("settings").addEventListener("click", () => download("adapter_config.json", JSON.stringify(made.config, null, 2)));
  part("example").addEventListener("click", async () => {
    const folder = new URL("../_static/example-adapter/", location);
    const files = await Promise.all(["adapter_model.safetensors", "adapter_config.json"].map(async (name) => {
      const answer = await fetch(new URL(name, folder));
      return new File([await answer.blob()], name);
    }));
    open(files);
  });
})();
