// Adapters: what a file holds as modules, looked into and resized on this machine, as lora_np.adapters does.
window.loraAdapter = (() => {
  "use strict";

  const { dot, rotating, finished } = window.loraSvd;
  const { fail, shown, isObject, tensorsOf, fileOf, headerOf, numbersOf, stored } = window.loraTensors;
  const PREFIX = "base_model.model.", TOKENS = ".token_adapter.trainable_tokens_delta";
  const PARTS = { // the ending of a key: its part, and whether it belongs to an embedding
    "lora_A.weight": ["A", false], "lora_B.weight": ["B", false],
    "lora_embedding_A": ["A", true], "lora_embedding_B": ["B", true],
    "lora_magnitude_vector": ["magnitude", null], "lora_B.bias": ["bias", false],
  };
  const OTHERS = new Set(["lora_velora_embed", "modules_to_save", "token_adapter", ...Object.keys(PARTS).map((end) => end.split(".")[0])]);
  const EPS = new Map([["F64", 2 ** -52], ["F32", 2 ** -23], ["F16", 2 ** -23], ["BF16", 2 ** -23]]); // halves are computed with in float32
  const ENOUGH = 0.99; // the share of the squared norm for which a rank is enough
  const MOST = 512; // of r: the decomposition of an r x r matrix runs in the page

  // Modules

  // A module of tensors A (r, k), B (d, r) and perhaps magnitude and bias (d), if they fit each other.
  function moduleOf(name, parts, alpha, { rslora = false, embedding = false, keys = {} } = {}) {
    const { A, B } = parts;
    if (!A || !B) fail(`${shown(name)} has no ${A ? "B" : "A"}`);
    for (const part of [A, B]) {
      if (part.shape.length !== 2) fail(`${shown(name)} has a factor of shape ${part.shape.join(" x ")}: only matrices are looked into here`);
      if (part.shape.includes(0)) fail(`${shown(name)}: A (r, k) and B (d, r) must not be empty, got ${A.shape.join(" x ")} and ${B.shape.join(" x ")}`);
    }
    const [rank] = A.shape, [d] = B.shape;
    if (rank !== B.shape[1]) fail(`${shown(name)}: A (r, k) and B (d, r) do not fit each other: ${A.shape.join(" x ")} and ${B.shape.join(" x ")}`);
    for (const part of ["magnitude", "bias"]) {
      if (parts[part] && !(parts[part].shape.length === 1 && parts[part].shape[0] === d)) fail(`${shown(name)}: ${part} must have shape ${d}, got ${parts[part].shape.join(" x ")}`);
    }
    if (rank > MOST) fail(`${shown(name)}: rank ${rank} is more than this page decomposes (${MOST})`);
    return { name, parts, keys, alpha, rslora, embedding, rank, scale: alpha / (rslora ? Math.sqrt(rank) : rank) };
  }

  // PEFT's file. `settings` says which rank, alpha and place a module has: by default what a plain config says.
  function read(buffer, config, settings = plain(config)) {
    const found = new Map(), others = [];
    for (const [key, tensor] of tensorsOf(buffer)) {
      const path = key.startsWith(PREFIX) ? key.slice(PREFIX.length) : fail(`${shown(key)} is not a key of PEFT`);
      const end = Object.keys(PARTS).find((part) => path.endsWith(`.${part}`));
      if (!end) {
        if (/\.lora_/.test(path)) fail(`${shown(key)} is of a kind that this page does not read`);
        others.push([key, path, tensor]);
        continue;
      }
      const [part, embedding] = PARTS[end], name = path.slice(0, -end.length - 1);
      if (name.split(".").includes("base_layer")) fail(`${shown(key)} adapts a parameter by its name, which this page does not read`);
      if (!found.has(name)) found.set(name, { parts: {}, keys: {} });
      const module = found.get(name);
      if (embedding !== null && (module.embedding ?? embedding) !== embedding) fail(`${shown(name)} has factors of a linear layer and of an embedding`);
      module.embedding ??= embedding ?? undefined;
      module.parts[part] = tensor;
      module.keys[part] = key;
    }
    if (!found.size) fail("the file has no LoRA tensors");
    const modules = new Map([...found].map(([name, { parts, keys, embedding = false }]) => {
      settings.place(name);
      const module = moduleOf(name, parts, settings.alpha(name), { rslora: Boolean(config.use_rslora), embedding, keys });
      const said = settings.rank(name);
      if (said !== module.rank) fail(`${shown(name)}: the config says rank ${said}, its tensors have ${module.rank}`);
      for (const [part, flag] of [["magnitude", "use_dora"], ["bias", "lora_bias"]]) {
        if (Boolean(parts[part]) !== Boolean(config[flag])) fail(`${shown(name)} has ${parts[part] ? "a" : "no"} ${part}, but ${flag} is ${Boolean(config[flag])}`);
      }
      return [name, module];
    }));
    const full = new Map(), rows = new Map();
    for (const [key, path, tensor] of others) {
      const name = path.endsWith(TOKENS) ? `${path.slice(0, -TOKENS.length)}.weight` : settings.full(path, modules);
      const kind = path.endsWith(TOKENS) ? rows : full;
      if (kind === rows) settings.rows(name.slice(0, -".weight".length), tensor);
      if (kind.has(name)) fail(`${shown(key)} gives ${shown(name)} a second time`);
      kind.set(name, { ...tensor, key });
    }
    if (config.trainable_token_indices && !rows.size) fail("the file has no rows for the config's trainable_token_indices");
    return { form: "peft", modules, full, rows, config, size: buffer.byteLength };
  }

  // A config without patterns for names, whose word on what is adapted is taken
  function plain(config) {
    if (!isObject(config) || config.peft_type !== "LORA") fail(`peft_type must be LORA, got ${shown(config?.peft_type)}`);
    return { rank: () => config.r ?? 8, alpha: () => config.lora_alpha ?? 8, place() {}, rows() {}, full: (path) => path };
  }

  // Linear algebra, on columns: a matrix is an array of Float64Array.

  // Q R of columns, by Gram-Schmidt done twice; a column that depends on the others leaves Q a column of zeros.
  function* orthonormal(columns) {
    const Q = [], R = columns.map(() => new Float64Array(columns.length));
    for (const [j, column] of columns.entries()) {
      yield;
      const q = Float64Array.from(column), size = Math.sqrt(dot(q, q));
      for (let pass = 0; pass < 2; pass++) {
        Q.forEach((other, i) => {
          const along = dot(other, q);
          R[i][j] += along;
          for (let n = 0; n < q.length; n++) q[n] -= along * other[n];
        });
      }
      const left = Math.sqrt(dot(q, q));
      R[j][j] = left > 1e-14 * size ? left : 0;
      Q.push(q.map((x) => (R[j][j] ? x / left : 0)));
    }
    return { Q, R };
  }

  // B A = U s V^T through an r x r matrix; B A itself is never formed. In steps, so that a page can draw in between.
  function* decomposing(module, { directions = true } = {}) {
    const { rank, parts: { A, B } } = module;
    const b = numbersOf(B), a = numbersOf(A), d = B.shape[0], k = A.shape[1];
    if (!a.every(Number.isFinite) || !b.every(Number.isFinite)) return null;
    const unit = scaled(a) * scaled(b);
    const left = yield* orthonormal(Array.from({ length: rank }, (_, j) => Float64Array.from({ length: d }, (_, i) => b[i * rank + j])));
    const right = yield* orthonormal(Array.from({ length: rank }, (_, j) => a.slice(j * k, (j + 1) * k)));
    const core = Array.from({ length: rank }, (_, j) => // column j of R_B R_A^T
      Float64Array.from({ length: rank }, (_, i) => dot(left.R[i], right.R[j])));
    const found = yield* rotating(core);
    const most = Math.min(rank, d, k); // a product of more directions has no more
    const s = found.s.slice(0, most).map((x) => x * unit);
    if (s[0] > (wide(module) ? Number.MAX_VALUE : LARGEST)) fail(`${shown(module.name)}: B A is too large for its numbers`);
    if (!directions) return { s };
    return { s, U: yield* mixed(left.Q, found.U), V: yield* mixed(right.Q, found.V) };
  }

  const svdOfProduct = (module) => finished(decomposing(module));

  function* mixed(Q, W) {
    const columns = [];
    for (const w of W) {
      yield;
      const column = new Float64Array(Q[0].length);
      w.forEach((share, i) => { for (let n = 0; n < column.length; n++) column[n] += share * Q[i][n]; });
      columns.push(column);
    }
    return columns;
  }

  // Numbers are divided by a power of two, which is returned, so that their squares neither overflow nor vanish.
  function scaled(values) {
    const largest = values.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    const unit = largest ? 2 ** Math.floor(Math.log2(largest)) : 1;
    if (unit !== 1) values.forEach((x, i) => { values[i] = x / unit; });
    return unit;
  }

  const LARGEST = 2 ** 128 * (1 - 2 ** -24); // of float32
  const wide = ({ parts: { A, B } }) => A.dtype === "F64" || B.dtype === "F64";

  // What lora_np.adapters.inspect says of each module

  function rankFor(s, dtype) {
    const lost = new Array(s.length + 1).fill(0);
    for (let i = s.length - 1; i >= 0; i--) lost[i] = lost[i + 1] + s[i] ** 2;
    if (!lost[0]) return 0;
    const tolerance = Math.sqrt(1 - ENOUGH) + 4 * Math.sqrt(s.length + 1) * EPS.get(dtype);
    return Math.max(1, lost.findIndex((part) => Math.sqrt(part / lost[0]) <= tolerance));
  }

  const total = (values) => values.reduce((a, b) => a + b, 0);

  // Its singular values are kept, its directions are not: they take more memory than the file.
  function* looking(module) {
    const found = module.s === undefined ? (module.s = (yield* decomposing(module, { directions: false }))?.s ?? null) : module.s;
    const row = { name: module.name, status: "NOT FINITE", rank: module.rank, scale: module.scale };
    if (!found) return row;
    const s = found.map((x) => Math.abs(module.scale) * x);
    const sum = total(s), enough = rankFor(s, wide(module) ? "F64" : "F32");
    return {
      ...row, s,
      status: sum ? "ok" : "DEAD",
      norm: Math.sqrt(total(s.map((x) => x * x))),
      effective_rank: sum ? Math.exp(-total(s.filter((x) => x > 0).map((x) => (x / sum) * Math.log(x / sum)))) : 0,
      stable_rank: sum ? total(s.map((x) => (x / s[0]) ** 2)) : 0,
      rank_for_99: enough,
      excess_rank: module.rank - enough,
    };
  }

  const look = (module) => finished(looking(module));

  // Names in order, with layer 10 after layer 9
  function inOrder(a, b) {
    const [left, right] = [a.split("."), b.split(".")];
    for (let i = 0; i < Math.min(left.length, right.length); i++) {
      const [x, y] = [left[i], right[i]], [m, n] = [x, y].map((part) => (/^\d+$/.test(part) ? Number(part) : 0));
      if (m !== n) return m - n;
      if (x !== y && !(/^\d+$/.test(x) && /^\d+$/.test(y))) return x < y ? -1 : 1;
    }
    return left.length - right.length;
  }

  const named = (adapter) => [...adapter.modules.keys()].sort(inOrder).map((name) => adapter.modules.get(name));

  function* inspecting(adapter) {
    const rows = [], modules = named(adapter);
    for (const module of modules) {
      yield rows.length / modules.length;
      rows.push(yield* looking(module));
    }
    const all = total(rows.map((row) => (row.norm || 0) ** 2)) || 1;
    for (const row of rows) if (row.norm !== undefined) row.share = row.norm ** 2 / all;
    return rows;
  }

  const inspect = (adapter) => finished(inspecting(adapter));

  // At most `rank` directions for each module, the strongest: what lora_np.adapters.resize(rank=...) writes

  const kept = (module, rank) => Math.min(rank, module.s.length);

  // The relative error, the size of the file and the config; the file itself is not made yet.
  function planned(adapter, rank) {
    if (adapter.start) fail(`it starts with ${adapter.start}, so that B A is no update of the base`);
    let lost = 0, norm = 0;
    for (const module of adapter.modules.values()) {
      if (module.lost) fail(module.lost);
      if (!look(module).s) fail(`${shown(module.name)} is not finite: it holds NaN or infinity`);
      const squares = module.s.map((x) => (module.scale * x) ** 2);
      norm += total(squares);
      lost += total(squares.slice(kept(module, rank)));
    }
    const { size } = headerOf(cut(adapter, rank, (module, part, shape) => ({ dtype: module.parts[part].dtype, shape })));
    return { error: Math.sqrt(lost / (norm || 1)), size, config: resized(adapter, rank) };
  }

  function resize(adapter, rank) {
    return { ...planned(adapter, rank), file: fileOf(cut(adapter, rank, factor)) };
  }

  // The tensors of the new file; `make` gives those of another shape.
  function cut(adapter, rank, make) {
    const tensors = new Map();
    for (const module of adapter.modules.values()) {
      const r = kept(module, rank), shapes = { A: [r, module.parts.A.shape[1]], B: [module.parts.B.shape[0], r] };
      let found;
      const directions = () => (found ??= svdOfProduct(module));
      for (const [part, tensor] of Object.entries(module.parts)) {
        const other = r !== module.rank && Object.hasOwn(shapes, part);
        tensors.set(module.keys[part] ?? keyOf(module, part), other ? make(module, part, shapes[part], directions) : tensor);
      }
    }
    for (const { key, ...tensor } of [...adapter.full.values(), ...adapter.rows.values()]) tensors.set(key, tensor);
    return tensors;
  }

  function keyOf({ name, embedding }, part) {
    const [end] = Object.entries(PARTS).find(([, [each, kind]]) => each === part && (kind === null || kind === embedding));
    return `${PREFIX}${name}.${end}`;
  }

  function factor(module, part, shape, directions) {
    const { s, U, V } = directions(), rank = part === "A" ? shape[0] : shape[1];
    const values = new Float64Array(shape[0] * shape[1]);
    for (let j = 0; j < rank; j++) {
      const root = Math.sqrt(s[j]);
      (part === "A" ? V : U)[j].forEach((x, i) => { values[part === "A" ? j * shape[1] + i : i * rank + j] = root * x; });
    }
    const { dtype } = module.parts[part];
    return { dtype, shape, bytes: stored(values, dtype) };
  }

  // The config of the adapter at this rank: as lora_np composes it, with the largest rank as r.
  function resized(adapter, rank) {
    const modules = new Map([...adapter.modules].map(([name, module]) => {
      const r = kept(module, rank);
      return [name, { rank: r, alpha: r === module.rank ? module.alpha : module.scale * (module.rslora ? Math.sqrt(r) : r) }];
    }));
    const largest = Math.max(...[...modules.values()].map((module) => module.rank));
    const same = [...modules].every(([name, module]) => module.rank === adapter.modules.get(name).rank);
    return composed(adapter.config, modules, same && adapter.config.r === largest);
  }

  // A config that is right for every module stays as it is; else the largest rank, and its most common alpha,
  // are its own, and each exception is listed by its whole path: lora_np.models.peft.compose.
  function composed(config, modules, right) {
    if (right && "r" in config && "lora_alpha" in config) return config;
    const all = [...modules.values()], r = Math.max(...all.map(({ rank }) => rank));
    const counts = new Map();
    for (const x of all.filter(({ rank }) => rank === r).map(({ alpha }) => alpha).sort((a, b) => a - b)) counts.set(x, (counts.get(x) || 0) + 1);
    const [alpha] = [...counts].reduce((a, b) => (b[1] > a[1] ? b : a));
    const escaped = (name) => name.replace(/[.*+?^${}()|[\]\\\-]/g, "\\$&");
    const others = (what, usual) => Object.fromEntries(
      [...modules].filter(([, module]) => module[what] !== usual).map(([name, module]) => [`^${escaped(name)}`, module[what]]));
    return { ...config, r, lora_alpha: alpha, rank_pattern: others("rank", r), alpha_pattern: others("alpha", alpha) };
  }

  return { OTHERS, EPS, moduleOf, read, named, inspect, inspecting, planned, resize, composed, decomposing, svdOfProduct, wide, total };
})();
