// What the page Fit draws: bars of memory on a GPU, the map of all GPUs, two settings side by side, and the
// image.
(() => {
  "use strict";

  const { gpus, memory: tables } = window.loraFit;
  const { verdict } = window.loraMemory;
  const METHODS = ["full", "LoRA", "QLoRA"];
  const SIGNS = { fits: "✓", tight: "≈", no: "✕" };

  const { make, whole } = window.loraPrograms;

  // As the package's size_text: one GB is 2^30 bytes, as people say it of memory.
  function size(bytes) {
    const units = ["B", "KB", "MB", "GB", "TB", "PB"];
    let place = 0;
    while (bytes >= 1024 ** (place + 1) && place + 1 < units.length) place += 1;
    if (!place) return `${bytes} B`;
    const two = { minimumFractionDigits: 2, maximumFractionDigits: 2, roundingMode: "halfEven" };
    return `${(bytes / 1024 ** place).toLocaleString("en-US", two)} ${units[place]}`;
  }

  // One decimal, and none from 100 on: what a bar and a sentence can say.
  const gb = (bytes) => {
    const number = bytes / 2 ** 30;
    return number >= 99.95
      ? whole(Math.round(number))
      : number.toFixed(number < 0.095 && number > 0 ? 2 : 1);
  };

  const sorted = Object.keys(gpus).sort((a, b) => gpus[a].memory - gpus[b].memory);
  const sold = (gpu) => `${Number(gpu.sold.toFixed(1))} GB`;
  const short = ({ name }) => name.replace(/ \d+GB$/, "");

  // ---- bars

  const shownCauses = (ways) =>
    Object.entries(tables.parts).filter(([cause]) => ways.some(({ parts }) => parts[cause]));

  function swatch(color) {
    const square = make("i");
    square.style.background = `var(--${color})`;
    return square;
  }

  // Rows of { name, way, gpu, chosen, kept }; the end of each GPU is a line, and what lies beyond it is
  // hatched. The scale is that of the GPU and of what was chosen: a longer bar leaves the picture.
  function bars(box, legend, rows) {
    const longest = Math.max(
      ...rows.flatMap(({ way, gpu, chosen, kept }) => [
        1.3 * gpu.memory,
        chosen || kept ? 1.02 * way.total : 0,
      ]),
    );
    const share = (bytes) => `${((100 * bytes) / longest).toFixed(3)}%`;
    box.ariaLabel = rows
      .map(({ name, way, gpu }) => `${name}: ${gb(way.total)} of ${gb(gpu.memory)} GB`)
      .join("; ");
    box.replaceChildren(
      ...rows.map(({ name, way, gpu, chosen, kept }) => {
        const row = make("div", "", "fit-row"),
          track = make("div", "", "fit-track"),
          total = make("span", `${gb(way.total)} GB`);
        Object.assign(row.dataset, {
          way: name,
          ...(chosen && { chosen: "" }),
          ...(kept && { kept: "" }),
          ...(way.total > longest && { longer: "" }),
        });
        const whole = make("div", "", "fit-gpu-size");
        whole.style.width = share(gpu.memory);
        track.append(whole);
        for (const [cause, color] of Object.entries(tables.parts)) {
          if (!way.parts[cause]) continue;
          const piece = make("i");
          piece.dataset.cause = piece.title = cause;
          piece.style.cssText = `width: ${share(way.parts[cause])}; background: var(--${color})`;
          track.append(piece);
        }
        if (way.total > gpu.memory) {
          const over = make("div", "", "fit-over");
          over.style.cssText = `left: ${share(gpu.memory)}; width: ${share(way.total - gpu.memory)}`;
          track.append(over);
        }
        const line = make("b", "", "fit-line");
        line.style.left = share(gpu.memory);
        track.append(line);
        row.append(make("span", kept ? "kept" : name), track, total);
        return row;
      }),
    );
    const { gpu } = rows[0],
      place = gpu.memory / longest;
    const label = make(
      "div",
      `${short(gpu)}: ${sold(gpu)}`,
      `fit-label${place > 0.55 ? " left" : ""}`,
    );
    label.style.setProperty("--place", place);
    box.prepend(label);
    legend.replaceChildren(
      ...shownCauses(rows.map(({ way }) => way)).map(([cause, color]) => {
        const entry = make("li", cause);
        entry.prepend(swatch(color));
        return entry;
      }),
    );
  }

  // ---- the map

  const GROUPS = {
    "RTX, GTX and Radeon": /^[RG]T?X/,
    "In data centers": /^(?![RG]T?X|Apple)/,
    "Apple, unified memory": /^Apple/,
  };

  // Whether it fits, in a sign and in words
  function judged({ total }, gpu) {
    const told = verdict(total, gpu),
      left = gpu.memory - total;
    const words =
      told === "no"
        ? `does not fit: needs ${gb(-left)} GB more`
        : `${told}, with ${gb(left)} GB left`;
    return { told, left, words, text: `${SIGNS[told]} ${gb(Math.abs(left))}` };
  }

  // A grid for each group of GPUs; `choose(gpu, method)` when a field is clicked, or Enter or the space bar
  // pressed.
  function makeMaps(box, choose) {
    const cells = [];
    const grids = Object.entries(GROUPS).map(([title, test]) => {
      const grid = make("table", "", "fit-map", { role: "grid" }),
        body = make("tbody"),
        head = make("tr");
      grid.append(make("caption", title), make("thead"), body);
      grid.tHead.append(head);
      for (const name of ["GPU", ...METHODS])
        head.append(make("th", name, "", { scope: "col", role: "columnheader" }));
      for (const name of sorted.filter((each) => test.test(each))) {
        const row = make("tr"),
          first = make("th", short(gpus[name]), "", { scope: "row", role: "rowheader" });
        first.append(make("span", sold(gpus[name])));
        row.append(first);
        for (const method of METHODS) {
          const cell = make("td", "", "", { role: "gridcell", tabIndex: -1 });
          Object.assign(cell.dataset, { gpu: name, method });
          row.append(cell);
          cells.push(cell);
        }
        body.append(row);
      }
      grid.addEventListener("keydown", (event) => {
        const here = event.target.closest("td"),
          row = here?.parentElement;
        if (!here) return;
        const moves = {
          ArrowRight: () => here.nextElementSibling,
          ArrowLeft: () => here.previousElementSibling,
          ArrowDown: () => row.nextElementSibling?.cells[here.cellIndex],
          ArrowUp: () => row.previousElementSibling?.cells[here.cellIndex],
          Home: () => row.cells[1],
          End: () => row.cells[METHODS.length],
        };
        if (event.key === "Enter" || event.key === " ")
          choose(here.dataset.gpu, here.dataset.method);
        else if (event.key in moves) reach(grid, moves[event.key]());
        else return;
        event.preventDefault();
      });
      grid.addEventListener("click", (event) => {
        const cell = event.target.closest("td");
        if (!cell) return;
        reach(grid, cell);
        choose(cell.dataset.gpu, cell.dataset.method);
      });
      return grid;
    });

    const scope = (grid) => [...grid.querySelectorAll("td")];
    function reach(grid, cell) {
      if (cell?.tagName !== "TD") return;
      for (const each of scope(grid)) each.tabIndex = each === cell ? 0 : -1;
      cell.focus();
    }
    box.replaceChildren(...grids);

    // The results, and which of them is shown above.
    return (planned, gpu, method) => {
      for (const cell of cells) {
        const name = cell.dataset.gpu,
          here = name === gpu && cell.dataset.method === method;
        cell.ariaSelected = String(here);
        if (!planned) {
          cell.textContent = "–";
          delete cell.dataset.verdict;
          cell.ariaLabel = null;
          continue;
        }
        const { told, left, text, words } = judged(planned[cell.dataset.method], gpus[name]);
        cell.textContent = text;
        cell.dataset.verdict = told;
        cell.ariaLabel = `${name}, ${cell.dataset.method}: ${words}`;
        const share = Math.max(0, left) / gpus[name].memory;
        cell.style.setProperty("--share", `${Math.round(14 + 24 * share)}%`);
      }
      for (const grid of grids) {
        const all = scope(grid),
          shown = all.find((cell) => cell.ariaSelected === "true");
        if (!grid.contains(document.activeElement))
          all.forEach((cell, i) => {
            cell.tabIndex = (shown ? cell === shown : i === 0) ? 0 : -1;
          });
      }
    };
  }

  // ---- tables

  const heading = (name) => make("th", name, "", { scope: "row" });

  function causes(body, planned) {
    if (!planned) return body.replaceChildren();
    const line = (name, bytes) => {
      const row = make("tr");
      row.append(heading(name), ...METHODS.map((each) => make("td", size(bytes(planned[each])))));
      return row;
    };
    return body.replaceChildren(
      ...Object.entries(tables.parts).map(([cause, color]) => {
        const row = line(cause, ({ parts }) => parts[cause]);
        row.firstChild.prepend(swatch(color));
        return row;
      }),
      line("total", ({ total }) => total),
      line("saved on disk", ({ disk }) => disk),
    );
  }

  function modules(box, sums) {
    const largest = Math.max(...sums.values());
    box.ariaLabel = [...sums].map(([name, numbers]) => `${name} ${whole(numbers)}`).join(", ");
    box.replaceChildren(
      ...[...sums].map(([name, numbers]) => {
        const row = make("div"),
          track = make("span"),
          bar = make("i");
        bar.style.width = `${(100 * numbers) / largest}%`;
        track.append(bar);
        row.append(make("span", name, "", { title: name }), track, make("span", whole(numbers)));
        return row;
      }),
    );
  }

  // Rows of a name and two texts, the second marked where it differs.
  function sideBySide(body, rows) {
    body.replaceChildren(
      ...rows.map(([name, kept, now]) => {
        const row = make("tr"),
          cell = make("td");
        cell.append(kept === now ? now : make("strong", now));
        row.append(heading(name), make("td", kept), cell);
        return row;
      }),
    );
  }

  // ---- the image: 1200 x 630, as previews of links are

  const { token } = window;
  const TOKENS = { fits: "good", tight: "tight", no: "not" };
  const tone = (told) => token(TOKENS[told]);
  const ground = (told) => token(`${TOKENS[told]}-wash`);
  const safe = (text) => text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);
  const cut = (text, longest) => (text.length > longest ? `${text.slice(0, longest - 1)}…` : text);

  function image(results, planned) {
    const parts = [],
      now = results[0];
    const [INK, SOFT, PAPER] = ["ink", "ink-2", "paper"].map(token);
    const put = (x, y, text, height, { color = INK, weight = 400, anchor = "start" } = {}) =>
      parts.push(
        `<text x="${x}" y="${y}" font-size="${height}" font-weight="${weight}" fill="${color}" ` +
          `text-anchor="${anchor}">${safe(text)}</text>`,
      );
    const box = (x, y, width, height, fill, more = "") =>
      parts.push(
        `<rect x="${x.toFixed(1)}" y="${y.toFixed(1)}" width="${Math.max(0, width).toFixed(1)}" ` +
          `height="${height.toFixed(1)}" fill="${fill}" ${more}/>`,
      );
    box(0, 0, 1200, 630, PAPER);
    box(0, 0, 1200, 10, tone(now.verdict));
    const others =
      results.length > 1 ? [] : METHODS.filter((method) => method !== now.setting.method);
    const longest = Math.max(
      ...results.flatMap(({ way, gpu }) => [way.total, 1.03 * gpu.memory]),
      ...others.map((name) => planned[name].total),
    );
    const scale = 690 / longest;
    const bar = (way, gpu, y, height) => {
      box(48, y, gpu.memory * scale, height, token("wash"), `stroke="${SOFT}" stroke-width="2"`);
      let x = 48;
      for (const [cause, color] of Object.entries(tables.parts)) {
        const width = (way.parts[cause] ?? 0) * scale;
        if (width) box(x, y + height / 9, width, (7 * height) / 9, token(color));
        x += width;
      }
      if (way.total > gpu.memory)
        box(
          48 + gpu.memory * scale,
          y + 2,
          (way.total - gpu.memory) * scale,
          height - 4,
          "url(#over)",
        );
      const line = `M${48 + gpu.memory * scale} ${y - 8}V${y + height + 8}`;
      parts.push(`<path d="${line}" stroke="${INK}" stroke-width="3"/>`);
    };
    results.forEach(({ way, gpu, verdict: told, title, sentence, could }, i) => {
      const two = results.length > 1,
        top = 66 + i * 232,
        y = top + (two ? 82 : 118),
        height = two ? 54 : 76,
        end = 48 + gpu.memory * scale;
      put(48, top, cut(title, 60), 25, { color: SOFT });
      put(48, top + 50, `${SIGNS[told]} ${sentence}`, two ? 36 : 42, {
        color: tone(told),
        weight: 700,
      });
      if (!two) put(48, top + 92, cut(could, 66), 22);
      bar(way, gpu, y, height);
      put(end > 560 ? end + 1 : end - 1, y + height + 30, `${short(gpu)}, ${sold(gpu)}`, 19, {
        color: SOFT,
        anchor: end > 560 ? "end" : "start",
      });
    });
    others.forEach((name, i) => {
      put(48, 358 + 96 * i, `${name}: ${gb(planned[name].total)} GB`, 19, { color: SOFT });
      bar(planned[name], now.gpu, 370 + 96 * i, 34);
    });
    let across = 48;
    for (const [cause, color] of shownCauses(results.map(({ way }) => way))) {
      box(across, 552, 16, 16, token(color));
      put(across + 21, 566, cause, 17, { color: SOFT });
      across += 34 + 8.6 * cause.length;
    }
    put(48, 608, cut(`lora_np: ${location.host}${location.pathname}`, 90), 18, { color: SOFT });
    const high = 500 / sorted.length;
    METHODS.forEach((method, i) =>
      put(970 + 75 * i, 52, method, 16, { color: SOFT, anchor: "middle" }),
    );
    sorted.forEach((name, i) => {
      const y = 62 + i * high;
      put(922, y + 12.5, name, 13, {
        color: name === now.gpu.name ? INK : SOFT,
        weight: name === now.gpu.name ? 700 : 400,
        anchor: "end",
      });
      METHODS.forEach((method, j) => {
        const { told, text } = judged(planned[method], gpus[name]),
          x = 934 + 75 * j;
        const here = name === now.gpu.name && method === now.setting.method;
        box(x, y, 72, high - 2, ground(told), here ? `stroke="${INK}" stroke-width="2.5"` : "");
        put(x + 36, y + 12.5, text, 12, { anchor: "middle", weight: here ? 700 : 400 });
      });
    });
    put(1156, 580, "GB left (✓, ≈) or lacking (✕)", 14, { color: SOFT, anchor: "end" });
    return `<svg xmlns="http://www.w3.org/2000/svg" width="1200" height="630" viewBox="0 0 1200 630"
  role="img" font-family="system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif">
<title>${safe(results.map(({ title, sentence }) => `${title}: ${sentence}`).join("; "))}</title>
<defs><pattern id="over" width="12" height="12" patternUnits="userSpaceOnUse"
  patternTransform="rotate(45)"><rect width="5" height="12" fill="${PAPER}"
  fill-opacity="0.65"/></pattern></defs>
${parts.join("\n")}
</svg>`;
  }

  // The drawing, or its picture by a canvas, twice as fine
  async function save(svg, kind) {
    let content = svg;
    if (kind === "png") {
      const picture = new Image(),
        canvas = make("canvas", "", "", { width: 2400, height: 1260 });
      picture.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
      await picture.decode();
      canvas.getContext("2d").drawImage(picture, 0, 0, 2400, 1260);
      content = await new Promise((done) => {
        canvas.toBlob(done, "image/png");
      });
    }
    window.loraPage.download(`fit.${kind}`, content);
  }

  window.loraFitViews = {
    METHODS,
    GROUPS,
    SIGNS,
    judged,
    bars,
    makeMaps,
    causes,
    modules,
    sideBySide,
    image,
    save,
    size,
    gb,
  };
})();
