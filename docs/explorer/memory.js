// The memory of a method from the terms of a model: numbers that the package gives (docs/browser/terms.py),
// for presets when the site is built, for other configs in the page's Python.
// `tables` are what fit_data.py exports.
(() => {
  "use strict";

  const LARGEST = 2 ** 31 - 1; // of a batch, or of a text where the model has no limit
  const GROWING = ["activations", "logits", "workspace"];
  const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
  const at = ([slope, fixed], rank) => slope * rank + fixed;
  // fixed + b (sample + s (token + s pair)) of a batch of b texts of s tokens
  const grown = ([fixed = 0, sample = 0, token = 0, pair = 0], b, s) =>
    fixed + b * (sample + s * (token + s * pair));
  const plus = (a, b, times = 1) => [0, 1, 2, 3].map((i) => (a[i] ?? 0) + times * (b[i] ?? 0));

  // Of the optimizer, on the GPU and in the memory of the host
  function state(tensors, optimizer, item, rank, { state: { each, small, block, paged } }) {
    const places = [0, 0];
    for (const [copies, slope, fixed, perRank, rest] of tensors) {
      const n = at([slope, fixed], rank);
      const size = optimizer.endsWith("8bit")
        ? n < small
          ? 8 * n
          : 2 * (n + 4 * Math.ceil(n / block))
        : optimizer === "adafactor"
          ? 4 * at([perRank, rest], rank)
          : n * each[optimizer][item];
      places[Number(optimizer.startsWith("paged") && n >= paged)] += size * copies;
    }
    return places;
  }

  // The moments at which a step may need most: of each activations, logits and workspace, as functions of
  // batch and length
  function moments(model, way, training, rank, { items }) {
    const {
      dtype,
      unquantised_dtype: unquantised,
      attention,
      cross_entropy: loss,
      checkpointing,
      offloading,
    } = training;
    const few = !(dtype in items),
      item = few ? 2 : items[dtype],
      hidden = items[few ? unquantised : dtype];
    const { o, s: stacks } = way.k[dtype === "int8" ? "8" : item];
    const sizes = stacks.map(([layers, size, eager, slope]) => [
      layers,
      plus(plus(size, slope, rank), eager, attention === "eager" ? 1 : 0),
    ]);
    const kept = checkpointing
      ? plus(o, offloading ? way.f : way.c, hidden)
      : sizes.reduce((all, [, size]) => plus(all, size), o);
    const norms = Math.max(0, ...(way.d?.[item] ?? []).map((line) => at(line, rank)));
    const work = Math.max(few ? model.matrix : 0, norms),
      [logits, copies] = model.loss[loss][hidden];
    const again = checkpointing && sizes.length ? sizes : [[1, []]];
    return [
      (b, s) => [grown(kept, b, s), logits * b * s, copies * b * s],
      ...again.map(([layers, size]) => (b, s) => [
        grown(kept, b, s) + Math.floor(grown(size, b, s) / layers),
        0,
        work,
      ]),
    ];
  }

  // By cause; what the host may hold; and the largest batch or length whose growing part fits beside the
  // rest.
  function memory(model, way, training, rank, tables) {
    const { items } = tables,
      { dtype, unquantised_dtype: unquantised, optimizer, batch_size: b, max_length: s } = training;
    const full = way === model.full,
      item = full ? items[dtype] : 4;
    const trained = full
      ? model.total
      : sum(way.t.map(([copies, slope, fixed]) => copies * at([slope, fixed], rank)));
    const weights =
      dtype in items ? items[dtype] * model.total : at(model.few[dtype], items[unquantised]);
    const [card, host] = state(way.t, optimizer, item, rank, tables),
      peaks = moments(model, way, training, rank, tables);
    const [activations, logits, workspace] = peaks
      .map((peak) => peak(b, s))
      .reduce((most, each) => (sum(each) > sum(most) ? each : most));
    const parts = {
      weights,
      adapter: full ? 0 : 4 * trained,
      gradients: item * trained,
      optimizer: card,
      activations,
      logits,
      workspace,
    };
    const total = sum(Object.values(parts));
    const most = (name, room) => {
      const left = room - total + sum(GROWING.map((cause) => parts[cause]));
      const needed = (n) =>
        Math.max(...peaks.map((peak) => sum(name === "batch_size" ? peak(n, s) : peak(b, n))));
      if (needed(1) === needed(LARGEST)) return null; // a picture has its own number of tokens
      return (
        bisect(
          1,
          (name === "max_length" && model.positions ? model.positions : LARGEST) + 1,
          left,
          needed,
        ) - 1
      );
    };
    return { parts, total, host, trained, most };
  }

  // The first number from `low` to below `high` that needs more than there is room for, or `high`
  function bisect(low, high, room, needed) {
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if (room < needed(middle)) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  // The largest rank that fits. Where a tensor's state turns smaller, memory falls.
  function largestRank(model, way, training, room, tables) {
    const needed = (rank) => memory(model, way, training, rank, tables).total,
      limit = way.limits[1];
    const { small, paged } = tables.state,
      { optimizer } = training,
      falls = new Set([1, limit + 1]);
    const sizes = [
      optimizer.endsWith("8bit") && small,
      optimizer.startsWith("paged") && paged,
    ].filter(Boolean);
    for (const size of sizes) {
      for (const [, slope, fixed] of way.t) {
        if (slope > 0)
          falls.add(Math.max(Math.min(1 - Math.floor((slope + fixed - size) / slope), limit), 1));
      }
    }
    const sorted = [...falls].sort((a, b) => a - b);
    for (let i = sorted.length - 2; i >= 0; i--) {
      if (needed(sorted[i]) <= room) return bisect(sorted[i], sorted[i + 1], room, needed) - 1;
    }
    return 0;
  }

  // The terms of full fine-tuning, or of a LoRA on `targets`; what the package refuses is an error.
  function wayOf(model, method, { targets, dora }) {
    const way = method === "full" ? model.full : model.lora[targets + (dora ? "+dora" : "")];
    if (typeof way === "string") throw new Error(way);
    return way;
  }

  // The terms of modules that are chosen by name: the sum of the parts of which each group has one of them
  function composed(parts, names) {
    const met = (group) => group.some((name) => names.includes(name));
    const own = parts
      .filter(([groups, , without = []]) => groups.every(met) && !met(without))
      .map(([, part]) => part);
    const all = (of) => own.flatMap((part) => of(part) ?? []),
      limits = all((part) => part.limits);
    return (
      own.find((part) => typeof part === "string") ?? {
        ...own.reduce(added),
        limits: [Math.min(...limits), Math.max(...limits)],
        t: all((part) => part.t),
        d: { 2: all((part) => part.d?.[2]), 4: all((part) => part.d?.[4]) },
      }
    );
  }

  // Numbers, and lists and objects of them, place by place
  function added(a = 0, b = 0) {
    if (typeof (a || b) !== "object") return a + b;
    const sums = Object.keys({ ...a, ...b }).map((key) => [key, added(a[key], b[key])]);
    return Object.assign(Array.isArray(a || b) ? [] : {}, Object.fromEntries(sums));
  }

  // Full fine-tuning, LoRA and QLoRA as lora_np.accounting.plan has them
  function plan(
    model,
    tables,
    { rank, targets, dora },
    options,
    methods = Object.keys(tables.methods[options.dtype]),
  ) {
    return Object.fromEntries(
      methods.map((method) => {
        const training = { ...options, dtype: tables.methods[options.dtype][method] },
          full = method === "full";
        const way = wayOf(model, method, { targets, dora }),
          found = memory(model, way, training, rank, tables);
        const largest = (room) => ({
          rank: full ? 0 : largestRank(model, way, training, room, tables),
          batch_size: found.most("batch_size", room),
          max_length: found.most("max_length", room),
        });
        return [
          method,
          { ...found, way, training, largest, disk: full ? 2 * model.total : 4 * found.trained },
        ];
      }),
    );
  }

  const verdict = (total, gpu) =>
    total <= gpu.room ? "fits" : total <= gpu.memory ? "tight" : "no";

  // What would make it fit: the first of the package's trials that does, a shorter text or a smaller batch
  // (with all of a trial's switches, if these alone are not enough), and a larger GPU.
  function remedies(model, tables, setting, gpu, gpus) {
    const { method, training, rank, targets, dora } = setting;
    const attempt = ({ options, narrow }) =>
      plan(
        model,
        tables,
        { rank, targets: narrow ? "attention" : targets, dora },
        { ...training, ...options },
        [method],
      )[method];
    const asked = attempt({}),
      able = model.lora["attention" + (dora ? "+dora" : "")].limits,
      wide = method !== "full" && asked.way.wide && able;
    const trials = tables.trials.filter(({ narrow }) => wide || !narrow);
    const enough = trials.find((trial) => attempt(trial).total <= gpu.room),
      found = enough ? [enough] : [];
    const { text, price, options, narrow } = enough ? { options: {} } : trials.at(-1);
    const { most } = attempt({ options, narrow });
    for (const [name, [what, cost]] of Object.entries(tables.shorter)) {
      const number = most(name, gpu.room);
      if (number)
        found.push({
          text: [text, `${what} ${number.toLocaleString("en")}`].filter(Boolean).join(", "),
          price: [price, cost].filter(Boolean).join("; "),
          options: { ...options, [name]: number },
          narrow,
        });
    }
    const other = tables.larger[gpu.larger].find((name) => gpus[name].room >= asked.total);
    if (other) found.push({ text: other, gpu: other, options: {}, price: "a larger GPU" });
    return found.map((each) => ({ ...each, memory: attempt(each).total }));
  }

  globalThis.loraMemory = { plan, verdict, remedies, composed };
})();
