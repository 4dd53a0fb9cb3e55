// Adapters as PEFT writes them: read, looked into and resized on this machine, as lora_np.adapters does.
window.loraAdapter = (() => {
  "use strict";

  const { dot, jacobi } = window.loraSvd;
  const PREFIX = "base_model.model.";
  const PARTS = {
    "lora_A.weight": ["A", false], "lora_B.weight": ["B", false],
    "lora_embedding_A": ["A", true], "lora_embedding_B": ["B", true],
    "lora_magnitude_vector": ["magnitude", null], "lora_B.bias": ["bias", false],
  };
  const SIZES = { F64: 8, F32: 4, F16: 2, BF16: 2 };
  const EPS = { F64: 2 ** -52, F32: 2 ** -23, F16: 2 ** -23, BF16: 2 ** -23 }; // halves are computed with in float32
  const ENOUGH = 0.99; // the share of the squared norm for which a rank is enough
  const MOST = 512; // of r: the decomposition of an r x r matrix runs in the page

  const fail = (message) => { throw new Error(message); };

  // Files

  function half(bits) {
    const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, rest = bits & 1023;
    if (exponent === 31) return rest ? NaN : sign * Infinity;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + rest / 1024) : 2 ** -14 * (rest / 1024));
  }

  function numbers(bytes, dtype) {
    const count = bytes.byteLength / SIZES[dtype];
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const found = new Float64Array(count);
    const word = new DataView(new ArrayBuffer(4));
    for (let i = 0; i < count; i++) {
      if (dtype === "F64") found[i] = view.getFloat64(8 * i, true);
      else if (dtype === "F32") found[i] = view.getFloat32(4 * i, true);
      else if (dtype === "F16") found[i] = half(view.getUint16(2 * i, true));
      else {
        word.setUint32(0, view.getUint16(2 * i, true) << 16);
        found[i] = word.getFloat32(0);
      }
    }
    return found;
  }

  const ulp = (x) => { // of float16, at |x|
    const exponent = Math.max(-14, Math.floor(Math.log2(Math.abs(x))));
    return 2 ** (exponent - 10);
  };

  function halfBits(x) {
    if (Number.isNaN(x)) return 0x7e00;
    const sign = x < 0 || Object.is(x, -0) ? 0x8000 : 0, size = Math.abs(x);
    if (size >= 65520) return sign | 0x7c00;
    if (size === 0) return sign;
    const step = ulp(size), quotient = size / step;
    let rounded = Math.round(quotient);
    if (Math.abs(quotient - Math.trunc(quotient) - 0.5) < 1e-12 && rounded % 2) rounded -= 1; // ties to even
    const result = rounded * step;
    const exponent = Math.floor(Math.log2(result));
    if (exponent < -14) return sign | Math.round(result / 2 ** -24);
    return sign | ((exponent + 15) << 10) | Math.round((result / 2 ** exponent - 1) * 1024);
  }

  function stored(values, dtype) {
    const bytes = new Uint8Array(values.length * SIZES[dtype]);
    const view = new DataView(bytes.buffer);
    const word = new DataView(new ArrayBuffer(4));
    values.forEach((x, i) => {
      if (dtype === "F64") view.setFloat64(8 * i, x, true);
      else if (dtype === "F32") view.setFloat32(4 * i, x, true);
      else if (dtype === "F16") view.setUint16(2 * i, halfBits(x), true);
      else {
        word.setFloat32(0, x);
        const bits = word.getUint32(0);
        view.setUint16(2 * i, (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16, true); // ties to even
      }
    });
    return bytes;
  }

  function tensorsOf(buffer) {
    if (buffer.byteLength < 8) fail("the file is too short to be safetensors");
    const length = Number(new DataView(buffer).getBigUint64(0, true));
    if (length > 1e8 || 8 + length > buffer.byteLength) fail("this is not a safetensors file: its header does not fit");
    let header;
    try {
      header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array(buffer, 8, length)));
    } catch {
      fail("this is not a safetensors file: its header is not JSON");
    }
    const tensors = new Map();
    for (const [key, { dtype, shape, data_offsets: [begin, end] = [] }] of Object.entries(header)) {
      if (key === "__metadata__") continue;
      if (!(dtype in SIZES)) fail(`${key} has dtype ${dtype}; an adapter has F64, F32, F16 or BF16`);
      const size = shape.reduce((a, b) => a * b, 1) * SIZES[dtype];
      if (!(begin >= 0) || end - begin !== size || 8 + length + end > buffer.byteLength) {
        fail(`${key} does not lie in the file as its header says`);
      }
      tensors.set(key, { dtype, shape, bytes: new Uint8Array(buffer, 8 + length + begin, size) });
    }
    return tensors;
  }

  function fileOf(tensors) {
    const header = { __metadata__: { format: "pt" } };
    let end = 0;
    for (const [key, { dtype, shape, bytes }] of tensors) {
      header[key] = { dtype, shape, data_offsets: [end, end += bytes.length] };
    }
    let text = JSON.stringify(header);
    text += " ".repeat((8 - (new TextEncoder().encode(text).length % 8)) % 8);
    const head = new TextEncoder().encode(text);
    const file = new Uint8Array(8 + head.length + end);
    new DataView(file.buffer).setBigUint64(0, BigInt(head.length), true);
    file.set(head, 8);
    let at = 8 + head.length;
    for (const { bytes } of tensors.values()) {
      file.set(bytes, at);
      at += bytes.length;
    }
    return file;
  }

  // What a pattern of PEFT says of a module: the first whose key ends the path, or matches its end.
  function patterned(pattern, name, otherwise) {
    for (const [key, content] of Object.entries(pattern || {})) {
      if (new RegExp(`^(?:.*\\.)?(?:${key})$`).test(name)) return content;
    }
    return otherwise;
  }

  function read(buffer, config) {
    if (config?.peft_type !== "LORA") fail(`peft_type must be LORA, got ${config?.peft_type}`);
    const modules = new Map(), rest = new Map();
    for (const [key, tensor] of tensorsOf(buffer)) {
      const path = key.startsWith(PREFIX) ? key.slice(PREFIX.length) : fail(`${key} is not a key of PEFT`);
      const end = Object.keys(PARTS).find((part) => path.endsWith(`.${part}`));
      if (!end) {
        if (path.includes(".lora_")) fail(`${key} is of a kind that this page does not read`);
        rest.set(key, tensor);
        continue;
      }
      const [part, embedding] = PARTS[end], name = path.slice(0, -end.length - 1);
      if (tensor.shape.length !== 2 && (part === "A" || part === "B")) {
        fail(`${key} has shape ${tensor.shape.join(" x ")}: only matrices are looked into here`);
      }
      const module = modules.get(name) || { name, embedding: false, parts: {}, keys: {} };
      if (embedding !== null) module.embedding = embedding;
      module.parts[part] = tensor;
      module.keys[part] = key;
      modules.set(name, module);
    }
    if (!modules.size) fail("the file has no LoRA tensors");
    for (const module of modules.values()) {
      const { A, B } = module.parts;
      if (!A || !B || A.shape[0] !== B.shape[1]) fail(`${module.name}: A (r, k) and B (d, r) do not fit each other`);
      module.rank = A.shape[0];
      const said = patterned(config.rank_pattern, module.name, config.r);
      if (said !== module.rank) fail(`${module.name}: the config says rank ${said}, its tensors have ${module.rank}`);
      if (module.rank > MOST) fail(`${module.name}: rank ${module.rank} is more than this page decomposes (${MOST})`);
      module.alpha = patterned(config.alpha_pattern, module.name, config.lora_alpha);
      module.scale = module.alpha / (config.use_rslora ? Math.sqrt(module.rank) : module.rank);
    }
    return { modules, rest, config };
  }

  // Linear algebra, on columns: a matrix is an array of Float64Array.

  // Q R of columns, by Gram-Schmidt done twice; a column that depends on the others leaves Q a column of zeros.
  function orthonormal(columns) {
    const Q = [], R = columns.map(() => new Float64Array(columns.length));
    columns.forEach((column, j) => {
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
    });
    return { Q, R };
  }

  // B A = U s V^T through an r x r matrix; B A itself is never formed.
  function svdOfProduct(module) {
    const { rank, parts: { A, B } } = module;
    const b = numbers(B.bytes, B.dtype), a = numbers(A.bytes, A.dtype), d = B.shape[0], k = A.shape[1];
    if (!a.every(Number.isFinite) || !b.every(Number.isFinite)) return null;
    const left = orthonormal(Array.from({ length: rank }, (_, j) => Float64Array.from({ length: d }, (_, i) => b[i * rank + j])));
    const right = orthonormal(Array.from({ length: rank }, (_, j) => a.slice(j * k, (j + 1) * k)));
    const core = Array.from({ length: rank }, (_, j) => // column j of R_B R_A^T
      Float64Array.from({ length: rank }, (_, i) => dot(left.R[i], right.R[j])));
    const found = jacobi(core);
    const mixed = (Q, W) => W.map((w) => {
      const column = new Float64Array(Q[0].length);
      w.forEach((share, i) => { for (let n = 0; n < column.length; n++) column[n] += share * Q[i][n]; });
      return column;
    });
    const most = Math.min(rank, d, k); // a product of more directions has no more
    return { s: found.s.slice(0, most), U: mixed(left.Q, found.U), V: mixed(right.Q, found.V) };
  }

  // What lora_np.adapters.inspect says of each module

  function needed(s, dtype) {
    const lost = new Array(s.length + 1).fill(0);
    for (let i = s.length - 1; i >= 0; i--) lost[i] = lost[i + 1] + s[i] ** 2;
    if (!lost[0]) return 0;
    const tolerance = Math.sqrt(1 - ENOUGH) + 4 * Math.sqrt(s.length + 1) * EPS[dtype];
    return Math.max(1, lost.findIndex((part) => Math.sqrt(part / lost[0]) <= tolerance));
  }

  const total = (values) => values.reduce((a, b) => a + b, 0);

  function look(module) {
    const found = module.found === undefined ? (module.found = svdOfProduct(module)) : module.found;
    const row = { name: module.name, status: "NOT FINITE", rank: module.rank, scale: module.scale };
    if (!found) return row;
    const s = found.s.map((x) => Math.abs(module.scale) * x);
    const sum = total(s);
    const dtype = [module.parts.A.dtype, module.parts.B.dtype].includes("F64") ? "F64" : "F32";
    const enough = needed(s, dtype);
    return {
      ...row, s,
      status: sum ? "ok" : "DEAD",
      norm: Math.sqrt(total(s.map((x) => x * x))),
      effective_rank: sum ? Math.exp(-total(s.filter((x) => x > 0).map((x) => (x / sum) * Math.log(x / sum)))) : 0,
      stable_rank: sum ? total(s.map((x) => (x / s[0]) ** 2)) : 0,
      needed: enough,
      wasted: module.rank - enough,
    };
  }

  function inspect(adapter) {
    const rows = [...adapter.modules.values()].map(look);
    const all = total(rows.map((row) => (row.norm || 0) ** 2)) || 1;
    for (const row of rows) if (row.norm !== undefined) row.share = row.norm ** 2 / all;
    return rows;
  }

  // At most `rank` directions for each module, the strongest: what lora_np.adapters.resize(rank=...) writes
  function resize(adapter, rank) {
    const tensors = new Map(), ranks = {}, alphas = {};
    const rslora = adapter.config.use_rslora;
    let lost = 0, norm = 0;
    for (const module of adapter.modules.values()) {
      const found = module.found === undefined ? (module.found = svdOfProduct(module)) : module.found;
      if (!found) fail(`${module.name} is not finite: it holds NaN or infinity`);
      const kept = Math.min(rank, found.s.length), squares = found.s.map((x) => (module.scale * x) ** 2);
      norm += total(squares);
      lost += total(squares.slice(kept));
      ranks[module.name] = kept;
      alphas[module.name] = kept === module.rank ? module.alpha : module.scale * (rslora ? Math.sqrt(kept) : kept);
      for (const [part, tensor] of Object.entries(module.parts)) {
        tensors.set(module.keys[part], kept === module.rank || !"AB".includes(part) ? tensor : cut(found, kept, part, tensor));
      }
    }
    for (const [key, tensor] of adapter.rest) tensors.set(key, tensor);
    return { file: fileOf(tensors), config: settings(adapter.config, ranks, alphas), error: Math.sqrt(lost / (norm || 1)), ranks };
  }

  function cut({ s, U, V }, rank, part, { dtype, shape }) {
    const roots = s.slice(0, rank).map(Math.sqrt);
    const values = new Float64Array(rank * (part === "A" ? shape[1] : shape[0]));
    roots.forEach((root, j) => {
      const column = part === "A" ? V[j] : U[j];
      column.forEach((x, i) => { values[part === "A" ? j * column.length + i : i * rank + j] = root * x; });
    });
    return { dtype, shape: part === "A" ? [rank, shape[1]] : [shape[0], rank], bytes: stored(values, dtype) };
  }

  // The most frequent rank and alpha are the config's own; all others are named, each by its whole path.
  function settings(config, ranks, alphas) {
    const commonest = (values) => {
      const counts = new Map();
      for (const x of [...values].sort((a, b) => a - b)) counts.set(x, (counts.get(x) || 0) + 1);
      return [...counts].reduce((a, b) => (b[1] > a[1] ? b : a))[0];
    };
    const escaped = (name) => name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    const others = (values, usual) => Object.fromEntries(
      Object.entries(values).filter(([, x]) => x !== usual).map(([name, x]) => [`^${escaped(name)}`, x]));
    const r = commonest(Object.values(ranks));
    const alpha = commonest(Object.keys(ranks).filter((name) => ranks[name] === r).map((name) => alphas[name]));
    return { ...config, r, lora_alpha: alpha, rank_pattern: others(ranks, r), alpha_pattern: others(alphas, alpha) };
  }

  const numbersOf = ({ bytes, dtype }) => numbers(bytes, dtype);

  return { numbersOf, read, inspect, resize, tensorsOf, svdOfProduct, halfBits, half, ENOUGH };
})();
