// How programs run an adapter, from the rules of lora-np check (runtimes.toml), and what two adapters have in
// common, as lora-np overlap measures it.
window.loraChecking = (() => {
  "use strict";

  const { runtimes, usual: OF, cured: TO_LORA } = window.loraAdapters;
  const { fail, shown } = window.loraTensors;
  const { EPS, named, composed, decomposing, wide, total } = window.loraAdapter;
  const { jacobi, finished, dot } = window.loraSvd;
  const WORST = ["refused", "ignored", "wrong scale", "not known", "fine"], ALL = "(all)", CLOSE = 1e-6;

  // The names of what has something that a rule may be about: lora_np.adapters.checking._features
  function features(adapter, r) {
    const found = new Map(), { modules, full, rows, config } = adapter;
    const add = (what, name) => found.set(what, (found.get(what) ?? new Set()).add(name));
    for (const module of modules.values()) {
      for (const part of ["magnitude", "bias"]) if (module.parts[part]) add(part, module.name);
      if (module.embedding) add("embedding", module.name);
      if (module.name.split(".").at(-1) === "lm_head") add("head", module.name);
      if (/\.mlp\.gate(\.weight)?$/.test(module.name)) add("router", module.name);
      if (/^(layers|h)\.\d+\.(self_attn|attn|mlp)\./.test(module.name)) add("headless", module.name);
      if (module.rank !== r) add("other rank", module.name);
      if (adapter.start) add("moved base", module.name);
    }
    for (const name of full.keys()) {
      const at = name.lastIndexOf("."), bias = name.slice(at + 1) === "bias" && (config.bias ?? "none") !== "none";
      const kind = bias ? "trained bias" : name.slice(0, Math.max(at, 0)).includes("norm") ? "saved norm" : "saved";
      add(modules.has(name.replace(/\.weight$/, "")) ? "copy" : kind, name);
    }
    for (const name of rows.keys()) add("rows", name);
    const targets = config.target_modules;
    if (typeof targets === "string" && targets !== "all" && targets !== "all-linear") add("expression", ALL);
    return found;
  }

  // By how much each scale is too large where these rules take it from a directory for PEFT
  function scaleErrors(rules, adapter, said) {
    return new Map([...adapter.modules.values()].map((module) => {
      const alpha = rules.alpha === "own" ? module.alpha : Number(said.lora_alpha);
      const rank = rules.rank === "own" ? module.rank : said.r;
      const scale = alpha / (module.rslora && rules.rslora ? Math.sqrt(rank) : rank);
      return [module.name, scale === module.scale ? 1 : module.scale ? scale / module.scale : Infinity];
    }));
  }

  // One row for each module of one program, and for what is replaced: lora_np.adapters.checking._checked
  function rowsOf(runtime, rules, adapter) {
    const said = composed(adapter.config, adapter.modules, adapter.form === "peft");
    const has = features(adapter, said.r), { instead } = rules;
    const found = new Map([ALL, ...adapter.modules.keys(), ...adapter.full.keys(), ...adapter.rows.keys()].map((name) => [name, []]));
    const add = (names, status, scale_error, why, fix, source = "") => {
      for (const module of names) {
        const row = { runtime, module, status, scale_error, why, fix, source: source || rules.source };
        found.set(module, [...(found.get(module) ?? []), row]);
      }
    };
    const reads = rules.reads.includes(adapter.form);
    if (!reads) add([ALL], "refused", null, `reads ${rules.reads.join(" and ")}, and this is ${adapter.form}`, instead);
    const ruled = new Set([...rules.fine, ...(rules.rules ?? []).flatMap((rule) => rule.has)]);
    for (const [what, names] of has) if (!ruled.has(what)) add(names, "not known", null, `no rule for this: ${what}`, "");
    for (const rule of rules.rules ?? []) {
      if ((rule.form ?? adapter.form) !== adapter.form) continue;
      add(new Set(rule.has.flatMap((what) => [...(has.get(what) ?? [])])), rule.status, null, rule.why, rule.fix ?? instead, rule.source);
    }
    const ranks = new Map([[ALL, said.r ?? 0], ...[...adapter.modules.values()].map(({ name, rank }) => [name, rank])]);
    const largest = Math.max(...ranks.values()), usual = rules.usual ?? Infinity;
    if (largest > usual) {
      const allowed = rules.ranks.find((limit) => limit >= largest);
      const fix = allowed ? rules.option.replace("{}", allowed) : `lora-np resize --rank ${rules.ranks.at(-1)}`;
      const over = [...ranks].filter(([name, rank]) => rank > usual && name !== ALL).map(([name]) => name);
      add(over.length ? over : [ALL], "refused", null, `a rank above ${usual}, the usual limit`, fix);
    }
    const errors = adapter.form === "peft" ? scaleErrors(rules, adapter, said) : new Map();
    for (const [name, error] of errors) {
      if (Math.abs(error - 1) <= CLOSE) continue;
      const root = adapter.modules.get(name).rslora && !rules.rslora ? ", not by its root" : "";
      add([name], "wrong scale", error, `divides ${OF[rules.alpha]} alpha by ${OF[rules.rank]} rank${root}`, instead, rules.scale_source);
    }
    return [...found].flatMap(([module, rows]) => {
      if (reads && module !== ALL) rows.push({ runtime, module, status: "fine", scale_error: errors.get(module) ?? null, why: "", fix: "", source: "" });
      const worst = Math.min(...rows.map(({ status }) => WORST.indexOf(status)));
      return rows.filter(({ status }) => WORST.indexOf(status) === worst).slice(0, 1);
    });
  }

  const check = (adapter) => Object.entries(runtimes).flatMap(([name, rules]) =>
    rowsOf(name, rules, adapter).map((row) => ({ ...row, version: rules.version, date: rules.date })));

  // To four digits, halves to even: Python's .4g
  function rounded(x) {
    const [, digits, power] = /^(\d\.\d{2}[02468])50*e(.+)$/.exec(x.toExponential(60)) ?? [];
    return String(digits ? Number(`${digits}e${power}`) : Number(x.toPrecision(4)));
  }

  // One row for each program and status, with the names of the modules
  function grouped(rows) {
    const groups = new Map(), all = new Set(rows.map(({ module }) => module).filter((name) => name !== ALL)).size;
    for (const row of rows) {
      const what = [row.runtime, row.status, row.scale_error === null ? "" : rounded(row.scale_error), row.why, row.fix];
      const key = JSON.stringify(what);
      if (!groups.has(key)) groups.set(key, { what, names: [] });
      groups.get(key).names.push(row.module);
    }
    return [...groups.values()].map(({ what: [runtime, ...rest], names }) => {
      const listed = names.length > 1 && names.length === all ? `all ${all}` : names.length <= 2 ? names.join(", ") : `${names[0]} and ${names.length - 1} more`;
      return [runtime, listed, ...rest];
    });
  }

  // Two adapters: lora_np.adapters.overlap

  // The directions of an update but for those that rounding alone makes; one stays if there is no other.
  function* significant(module) {
    const { s, U, V } = (yield* decomposing(module)) ?? fail(`${shown(module.name)} is not finite: it holds NaN or infinity`);
    const smallest = Math.max(module.parts.B.shape[0], module.parts.A.shape[1]) * EPS.get(wide(module) ? "F64" : "F32");
    const count = Math.max(1, s.filter((x) => x > s[0] * smallest).length), weight = Math.abs(module.scale);
    return { s: s.slice(0, count).map((x) => weight * x), U: U.slice(0, count), V: V.slice(0, count), sign: Math.sign(module.scale) };
  }

  const squares = (s) => total(s.map((x) => x * x));

  // The smallest angle between the spaces of orthonormal rows, from the largest cosine, in degrees
  function angle(products) {
    const [columns, rows] = [products[0].length, products.length];
    const wideside = columns <= rows
      ? Array.from({ length: columns }, (_, j) => Float64Array.from(products, (row) => row[j]))
      : products.map((row) => Float64Array.from(row));
    return (Math.acos(Math.min(1, jacobi(wideside).s[0])) * 180) / Math.PI;
  }

  const RIGHT = { inner: 0, onSecond: 0, onFirst: 0, inputs: 90, outputs: 90 };

  // Inner product, what each has on the inputs of the other, squared norms; angles of inputs and outputs
  function* pair(one, other) {
    const F = one && (yield* significant(one)), G = other && (yield* significant(other));
    const found = { ...RIGHT, one: F ? squares(F.s) : 0, other: G ? squares(G.s) : 0 };
    if (!found.one || !found.other) return found;
    const inputs = F.V.map((v) => G.V.map((w) => dot(v, w))), outputs = F.U.map((u) => G.U.map((w) => dot(u, w)));
    F.s.forEach((s, i) => G.s.forEach((t, j) => {
      found.inner += F.sign * G.sign * s * t * inputs[i][j] * outputs[i][j];
      found.onSecond += (s * inputs[i][j]) ** 2;
      found.onFirst += (t * inputs[i][j]) ** 2;
    }));
    return { ...found, inputs: angle(inputs), outputs: angle(outputs) };
  }

  function row(module, parts) {
    const [inner, onSecond, onFirst, one, other] = ["inner", "onSecond", "onFirst", "one", "other"].map((what) => total(parts.map((each) => each[what])));
    return {
      module,
      overlap: Math.sqrt((onSecond + onFirst) / (one + other || 1)),
      cosine: inner / (Math.sqrt(one * other) || 1),
      share_of_first: onSecond / (one || 1),
      share_of_second: onFirst / (other || 1),
      inputs: Math.min(...parts.map((each) => each.inputs)),
      outputs: Math.min(...parts.map((each) => each.outputs)),
    };
  }

  // Module by module, so that a page can draw in between: yields the share that is done, and returns the rows.
  function* overlapping(first, second) {
    for (const { start, modules } of [first, second]) {
      if (start) fail(`one starts with ${start}, so that B A is no update of the base`);
      for (const { lost } of modules.values()) if (lost) fail(lost);
    }
    if (Boolean(first.config.fan_in_fan_out) !== Boolean(second.config.fan_in_fan_out)) fail("fan_in_fan_out differs");
    const names = [...new Set([...named(first), ...named(second)].map(({ name }) => name))];
    for (const name of names) {
      const [one, other] = [first, second].map(({ modules }) => modules.get(name));
      if (one && other && kind(one) !== kind(other)) fail(`${shown(name)} is of ${kind(one)} in the first and of ${kind(other)} in the second`);
    }
    const found = [], every = [];
    for (const [i, name] of names.entries()) {
      yield i / names.length;
      const [one, other] = [first, second].map(({ modules }) => modules.get(name));
      const parts = yield* pair(one, other);
      every.push(parts);
      if (one && other) found.push(row(name, [parts]));
    }
    return [...found, row("all", every)];
  }

  const kind = ({ parts: { A, B }, embedding }) => `shape ${B.shape[0]} x ${A.shape[1]}${embedding ? ", an embedding" : ""}`;

  const overlap = (first, second) => finished(overlapping(first, second));

  return { check, grouped, overlap, overlapping };
})();
