// From the fields of a config.json to the modules of a model, and what a LoRA on them costs.
// The families are the package's own data files (docs/develop/family.md); its tests hold this file against it.
(() => {
  "use strict";

  const LARGEST = 2 ** 40, DEEPEST = 2 ** 16; // a number in a config; the layers of a stack
  const fail = (message) => { throw new Error(message); };

  // Expressions: names, whole numbers, texts, lists, arithmetic, comparisons, conditions, and four functions.

  const TOKEN = /\s*(?:(\d+(?:\.\d+)?)|([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)?)|'([^']*)'|"([^"]*)"|(\/\/|[=!<>]=|[-+*/%<>()[\],]))/y;
  const compiled = new Map();

  function compile(value) {
    if (typeof value !== "string") return () => value;
    if (!compiled.has(value)) compiled.set(value, parse(value));
    return compiled.get(value);
  }

  function tokens(text) {
    const found = [];
    TOKEN.lastIndex = 0;
    for (let at = 0; text.slice(at).trim(); at = TOKEN.lastIndex) {
      const match = TOKEN.exec(text);
      if (!match) fail(`not an expression: ${text}`);
      const [, number, name, single, double, sign] = match;
      if (number !== undefined) found.push({ value: Number(number) });
      else if (name !== undefined) found.push({ name });
      else if (sign !== undefined) found.push({ sign });
      else found.push({ value: single ?? double });
    }
    return found;
  }

  function parse(text) {
    const list = tokens(text);
    let place = 0;
    const is = (word) => list[place] && (list[place].sign === word || list[place].name === word);
    const take = (word) => is(word) && (place += 1, true);
    const need = (word) => take(word) || fail(`not an expression: ${text}`);

    function series(end) {
      const items = [];
      while (place < list.length && !is(end)) {
        items.push(condition());
        if (!take(",")) break;
      }
      return items;
    }

    function condition() {
      const then = either();
      if (!take("if")) return then;
      const test = either();
      need("else");
      const otherwise = condition();
      return (env) => (truth(test(env)) ? then(env) : otherwise(env));
    }

    function either() {
      let left = both();
      while (take("or")) {
        const [a, b] = [left, both()];
        left = (env) => { const value = a(env); return truth(value) ? value : b(env); };
      }
      return left;
    }

    function both() {
      let left = negated();
      while (take("and")) {
        const [a, b] = [left, negated()];
        left = (env) => { const value = a(env); return truth(value) ? b(env) : value; };
      }
      return left;
    }

    function negated() {
      if (!take("not")) return compared();
      const inner = negated();
      return (env) => !truth(inner(env));
    }

    function compared() {
      let left = sum();
      const steps = [];
      for (;;) {
        const sign = ["==", "!=", "<=", ">=", "<", ">", "in"].find(take) ?? (take("not") && need("in") ? "not in" : "");
        if (!sign) break;
        steps.push([COMPARE[sign], sum()]);
      }
      if (!steps.length) return left;
      return (env) => {
        let value = left(env);
        return steps.every(([test, next]) => { const other = next(env), yes = test(value, other); value = other; return yes; });
      };
    }

    function chain(signs, inner) {
      let left = inner();
      for (let sign; (sign = signs.find(take));) {
        const [a, b, apply] = [left, inner(), ARITHMETIC[sign]];
        left = (env) => apply(a(env), b(env));
      }
      return left;
    }
    const sum = () => chain(["+", "-"], term);
    const term = () => chain(["*", "//", "/", "%"], unary);

    function unary() {
      if (!take("-")) return indexed();
      const inner = unary();
      return (env) => -inner(env);
    }

    function indexed() {
      let inner = atom();
      while (take("[")) {
        const [value, index] = [inner, condition()];
        need("]");
        inner = (env) => item(value(env), index(env));
      }
      return inner;
    }

    function atom() {
      if (take("(")) {
        const items = series(")");
        const alone = items.length === 1 && !(list[place - 1].sign === ",");
        need(")");
        return alone ? items[0] : (env) => items.map((each) => each(env));
      }
      if (take("[")) {
        const items = series("]");
        need("]");
        return (env) => items.map((each) => each(env));
      }
      const { value, name } = list[place++] ?? fail(`not an expression: ${text}`);
      if (value !== undefined) return () => value;
      if (name === undefined) fail(`not an expression: ${text}`);
      if (name === "True" || name === "False") return () => name === "True";
      if (take("(")) {
        const call = CALLS[name] ?? fail(`not allowed in an expression: ${name}`);
        const items = series(")");
        need(")");
        return (env) => call(...items.map((each) => each(env)));
      }
      return (env) => (name in env ? env[name] : fail(`not a variable: ${name}`));
    }

    const items = series("");
    if (place < list.length || !items.length) fail(`not an expression: ${text}`);
    return items.length === 1 ? items[0] : (env) => items.map((each) => each(env));
  }

  const truth = (value) => (Array.isArray(value) ? value.length > 0 : Boolean(value));
  const plain = (value) => (typeof value === "boolean" ? Number(value) : value);
  const same = (a, b) => plain(a) === plain(b);
  const remainder = (a, b) => (b ? ((a % b) + b) % b : fail("a division by zero"));
  const item = (list, index) => list[index < 0 ? index + list.length : index] ?? fail("a list is too short");
  const COMPARE = {
    "==": same, "!=": (a, b) => !same(a, b), "<": (a, b) => a < b, "<=": (a, b) => a <= b,
    ">": (a, b) => a > b, ">=": (a, b) => a >= b,
    in: (a, b) => (Array.isArray(b) ? b.some((each) => same(each, a)) : typeof b === "string" ? b.includes(a) : String(a) in b),
    "not in": (a, b) => !COMPARE.in(a, b),
  };
  const ARITHMETIC = {
    "+": (a, b) => (Array.isArray(a) ? [...a, ...b] : a + b), "-": (a, b) => a - b, "*": (a, b) => a * b,
    "%": remainder, "//": (a, b) => (a - remainder(a, b)) / b,
    "/": (a, b) => (remainder(a, b) ? fail(`${b} does not divide ${a}`) : a / b),
  };
  const CALLS = {
    min: (...values) => Math.min(...values.flat()),
    max: (...values) => Math.max(...values.flat()),
    len: (value) => (Array.isArray(value) ? value : Object.keys(value)).length,
    at: (values, key, otherwise) => (values && typeof values === "object" ? values[key] : undefined) ?? otherwise,
  };

  // A family: its data file over that of the family that it extends.

  const read = new Map();

  function family(name, files) {
    if (!read.has(name)) {
      if (!Object.hasOwn(files, name) || name.startsWith("_")) {
        fail(`model_type must be one of the ${known(files).length} families that are described, got "${name}"`);
      }
      read.set(name, { ...merged(name, files), name });
    }
    return read.get(name);
  }

  const known = (files) => Object.keys(files).filter((name) => !name.startsWith("_"));
  const without = (entries, test) => Object.fromEntries(Object.entries(entries).filter(([key, value]) => !test(key, value)));

  function merged(name, files) {
    const { extends: below, ...own } = files[name];
    const heads = {};
    for (const [tasks, modules] of Object.entries(own.heads ?? {})) {
      for (const task of tasks.split(", ")) heads[task] = { ...heads[task], ...modules };
    }
    const above = { ...own, heads };
    const under = below ? merged(below, files) : {};
    const result = { ...under, ...above };
    for (const key of ["fields", "modules", "heads", "stacks", "parts", "bases"]) {
      result[key] = { ...under[key], ...above[key] };
    }
    // a new value first: what follows may need it
    result.let = { ...above.let, ...without(under.let ?? {}, (key) => key in (above.let ?? {})) };
    for (const key of ["modules", "heads", "stacks", "parts"]) {
      result[key] = without(result[key], (_, entry) => entry === false);
    }
    result.fields = without(result.fields, (key) => key in (above.let ?? {}));
    result.let = without(result.let, (key) => key in (above.fields ?? {}));
    return result;
  }

  // Evaluating it.

  // What the parameters of a stack do not tell: expressions that a file may replace, else a variable, else a constant.
  const FACTS = {
    width: "d", heads: "heads", kv_heads: "kv_heads", head_width: "width", value_width: "width",
    activation: "'silu'", cross_attention: false,
  };
  const POSITIVE = ["dropout", "attention_dropout"]; // a rate, of which is asked whether there is one
  const USUAL = { tokens: 0, float_norm: false, half_softmax: false, soft_cap: false, repeats: 1, half_loss: false };

  function facts(stack, tree, env) {
    const known = (name) => name in tree.fields || name in tree.let;
    const usual = { ...FACTS };
    for (const name of POSITIVE) usual[name] = known(name) ? `${name} > 0` : false;
    for (const [name, value] of Object.entries(USUAL)) usual[name] = known(name) ? name : value;
    const inner = Object.create(env, { i: { value: 0 } }); // those of its first layer
    for (const [name, text] of Object.entries(stack.each ?? {})) inner[name] = compile(text)(inner);
    return Object.fromEntries(Object.entries(usual).map(([name, text]) => [name, compile(stack[name] ?? text)(inner)]));
  }

  function longest(values, env) {
    const text = values.text_config ?? {};
    const given = ("max_position_embeddings" in text ? text : values).max_position_embeddings;
    const found = env.positions || env["text.positions"] || given;
    return Number.isInteger(found) && found > 0 ? found : 0;
  }

  function build(values, files, { name = "", architecture = "" } = {}) {
    const { classes, tasks, targets = [], fused = {}, name: type } = family(String(values.model_type), files);
    const asked = architecture || (values.architectures ?? [])[0] || "";
    const task = asked ? tasks.find((each) => classes + each === asked) : tasks[0];
    if (!task) fail(`architecture must be one of ${tasks.map((each) => classes + each).join(", ")}, got "${asked}"`);
    const modules = [], layers = [];
    const env = place(family(type, files), values, task, "", modules, layers, files);
    const head = modules.find((module) => module.role === "head")?.name ?? "";
    const chosen = Object.entries(env).find(([name]) => leaf(name) === "chosen")?.[1] ?? 0; // experts of a token
    return { name: name || type, family: type, modules, head, targets, fused, layers, chosen, positions: longest(values, env) };
  }

  function place(tree, values, task, path, modules, layers, files) {
    const env = { task, labels: labels(values) };
    for (const [name, entry] of Object.entries(tree.fields)) env[name] = field(name, entry, values, env);
    const base = task === "Model" ? "" : tree.bases[task] ?? tree.base ?? "";
    const prefix = join(path, base);
    for (const [key, part] of Object.entries(tree.parts)) {
      const inner = values[part.config] ?? (part.flat ? values : part.defaults ?? {});
      const type = inner.model_type;
      const other = type === undefined || type === null || type === tree.name ? part.family : type;
      const found = place(
        family(String(other), files), inner, part.task ?? "Model", join(prefix, part.path), modules, layers, files,
      );
      for (const [name, value] of Object.entries(found)) env[`${key}.${name}`] = value;
    }
    for (const [name, text] of Object.entries(tree.let)) env[name] = compile(text)(env);
    const depths = {};
    for (const [stack, entry] of Object.entries(tree.stacks)) {
      if (!truth(compile(entry.when ?? true)(env))) continue;
      const depth = size("layers", compile(entry.repeat)(env), 0, DEEPEST);
      depths[stack] = depth;
      if (depth && entry.attention !== false) layers.push({ prefix: join(prefix, stack), depth, ...facts(entry, tree, env) });
    }
    for (const [name, entry] of Object.entries(tree.modules)) append(name, entry, prefix, env, depths, tree.stacks, modules);
    for (const [name, entry] of Object.entries(tree.heads[task] ?? {})) append(name, entry, path, env, depths, {}, modules);
    return env;
  }

  const join = (path, name) => (path && name ? `${path}.${name}` : path || name);

  // A module, or alike ones together; where a stack's layers differ, those of each layer that has it.
  function append(path, entry, prefix, env, depths, stacks, modules) {
    const parts = path.split(".");
    const stars = parts.flatMap((part, index) => (part === "*" ? [parts.slice(0, index).join(".")] : []));
    if (stars.some((stack) => !depths[stack])) return;
    const ranges = stars.map((stack) => Array.from({ length: depths[stack] }, (_, i) => i));
    const each = stars.length ? stacks[stars[0]]?.each : undefined;
    const alike = new Map();
    for (const i of each ? ranges[0] : [null]) {
      const inner = i === null ? env : Object.create(env, { i: { value: i } });
      if (i !== null) for (const [name, text] of Object.entries(each)) inner[name] = compile(text)(inner);
      if (!truth(compile(entry.when ?? true)(inner))) continue;
      const value = (key, otherwise) => compile(entry[key] ?? otherwise)(inner);
      const computed = {
        shape: [value("shape")].flat(), bias: truth(value("bias", false)), tied: truth(value("tied", false)),
        tiedBias: truth(value("tied_bias", false)), groups: value("groups", 1),
      };
      const key = JSON.stringify(computed);
      if (!alike.has(key)) alike.set(key, { computed, layers: [] });
      alike.get(key).layers.push(i);
    }
    for (const { computed, layers } of alike.values()) {
      const { role, kind = kindOf(role), alias = "", parts: maps = [] } = entry;
      modules.push({
        name: join(prefix, path), alias: alias && join(prefix, alias), role, kind, parts: maps, ...computed,
        ranges: layers[0] === null ? ranges : [layers, ...ranges.slice(1)],
      });
    }
  }

  function kindOf(role) {
    if (["embedding", "convolution", "norm", "router", "experts", "parameter"].includes(role)) return role;
    if (role === "position") return "embedding";
    return role.endsWith("norm") ? "norm" : "linear";
  }

  function field(name, entry, values, env) {
    const { default: usual, from = name, null: none, minimum = 1, maximum = "", type } =
      entry !== null && typeof entry === "object" && !Array.isArray(entry) ? entry : { default: entry };
    const names = [from].flat();
    const given = names.find((each) => values[each] !== undefined && values[each] !== null);
    if (given === undefined) return compile(none !== undefined && names[0] in values ? none : usual)(env);
    const value = values[given];
    const text = typeof usual === "string" && usual.startsWith("'");
    switch (type ?? (text ? "text" : typeof usual === "boolean" ? "flag" : "size")) {
      case "size": return size(given, value, minimum, maximum ? env[maximum] : LARGEST);
      case "flag": return typeof value === "boolean" ? value : fail(`${given} must be true or false, got ${JSON.stringify(value)}`);
      case "text": return typeof value === "string" ? value : fail(`${given} must be text, got ${JSON.stringify(value)}`);
      case "list": return [value].flat().map((each) => size(given, each, 0, LARGEST));
      case "texts": return [value].flat();
      case "pair": return (Array.isArray(value) ? value : [value, value]).map((each) => size(given, each, 1, LARGEST));
      default: return value;
    }
  }

  function size(name, value, minimum, maximum) {
    if (Number.isInteger(value) && value >= minimum && value <= maximum) return value;
    return fail(`${name} must be a whole number from ${minimum} to ${maximum}, got ${JSON.stringify(value)}`);
  }

  function labels({ id2label, num_labels: given }) {
    if (id2label && typeof id2label === "object") return Object.keys(id2label).length;
    return given === undefined || given === null ? 2 : size("num_labels", given, 0, LARGEST);
  }

  // Counting.

  const product = (numbers) => numbers.reduce((a, b) => a * b, 1);
  const copies = ({ ranges }) => product(ranges.map((range) => range.length));
  const own = ({ shape, bias, tied, tiedBias }) => (tied ? 0 : product(shape)) + (bias && !tiedBias ? shape[0] : 0);

  const total = ({ modules }) => modules.reduce((sum, module) => sum + own(module) * copies(module), 0);

  function names({ ranges }, text) {
    return ranges.reduce((all, range) => all.flatMap((name) => range.map((i) => name.replace("*", i))), [text]);
  }

  const leaf = (name) => name.slice(name.lastIndexOf(".") + 1);
  const endsWith = (name, target) => name === target || name.endsWith(`.${target}`);
  const parameter = ({ name, kind }) => (kind === "router" ? `${name}.weight` : name);
  const adaptable = ({ kind }) => ["linear", "embedding", "convolution"].includes(kind);

  // Which modules the targets mean, as PEFT reads them: null (the family's own), "all-linear", or ends of names.
  function pick(spec, targets) {
    if (targets === null) targets = spec.targets.length ? spec.targets : fail(`targets must be given: PEFT has no default for ${spec.family}`);
    const linear = spec.modules.filter(({ kind, name }) => kind === "linear" && name !== spec.head);
    const fused = Object.keys(spec.fused);
    if (targets === "all-linear") {
      if (!fused.length) return linear.map((module) => ({ module, hits: names(module, module.name), times: 1 }));
      targets = [...new Set([...linear.map(({ name }) => leaf(name)), ...fused])].sort();
    }
    const rest = [], parameters = new Map();
    for (const target of targets) {
      const old = fused.find((name) => endsWith(target, name));
      if (!old) rest.push(target);
      else parameters.set(spec.fused[old], [...(parameters.get(spec.fused[old]) ?? []), old]);
    }
    const picks = ending(spec, rest);
    for (const [name, present] of parameters) {
      const needed = fused.filter((old) => spec.fused[old] === name);
      const missing = needed.filter((old) => !present.includes(old));
      if (missing.length) fail(`targets: ${present.join(", ")} needs ${missing.join(", ")} too: PEFT adapts them fused in ${name}`);
      for (const module of spec.modules) {
        if (["router", "experts"].includes(module.kind) && endsWith(parameter(module), name)) {
          picks.push({ module, hits: names(module, module.name), times: needed.length });
        }
      }
    }
    return picks.length ? picks : fail(`targets: they select nothing of ${spec.name}`);
  }

  // As models/selection.py: a name must match modules that LoRA can adapt, and nothing else that has a path.
  function ending(spec, targets) {
    const called = spec.modules.filter(({ kind }) => !["parameter", "experts"].includes(kind));
    const found = new Map();
    let missing = targets;
    for (const key of ["name", "alias"]) {
      const wanted = missing;
      missing = new Set(wanted);
      for (const module of key === "name" ? called : called.filter(adaptable)) {
        names(module, module[key] || module.name).forEach((name, index) => {
          const hit = wanted.filter((target) => endsWith(name, target));
          if (!hit.length) return;
          if (!adaptable(module)) fail(`targets: "${hit[0]}" matches the ${module.kind} ${name}, which LoRA cannot adapt`);
          hit.forEach((target) => missing.delete(target));
          found.set(module, (found.get(module) ?? new Set()).add(names(module, module.name)[index]));
        });
      }
      missing = [...missing];
    }
    const homes = new Set(called.flatMap(({ name }) => name.split(".").slice(0, -1).map((_, i, parts) => parts.slice(0, i + 1).join("."))));
    for (const home of homes) {
      const target = targets.find((each) => endsWith(home, each));
      if (target) fail(`targets: "${target}" matches the container ${home}, which LoRA cannot adapt`);
    }
    if (missing.length) fail(`targets: "${missing[0]}" matches no module of ${spec.name} that LoRA can adapt`);
    return [...found].map(([module, hits]) => ({ module, hits: [...hits], times: 1 }));
  }

  // r (d + k) for a linear map; PEFT's rules for the others; and DoRA's magnitudes.
  function factors({ kind, shape, groups, name }, rank, dora) {
    const [rows, columns, ...kernel] = shape;
    switch (kind) {
      case "embedding": return rank * (rows + columns) + (dora ? columns : 0);
      case "convolution":
        if (rank % groups || rows % groups) fail(`groups must divide rank = ${rank} and d_out = ${rows}, got ${groups}`);
        return rank * columns * groups * product(kernel) + (rank * rows) / groups + (dora ? rows : 0);
      case "experts":
        if (dora) fail(`PEFT has no DoRA for fused experts (${name})`);
        return rows * rank * (columns + kernel[0]);
      default: return rank * (rows + columns) + (dora ? rows : 0);
    }
  }

  const counters = new WeakMap(); // of each model, by what is adapted: to look for names takes longest

  // What a LoRA on these modules costs, as a function of its rank.
  function counting(spec, { targets = null, dora = false }) {
    if (!counters.has(spec)) counters.set(spec, new Map());
    const known = counters.get(spec), key = JSON.stringify([targets, dora]);
    if (!known.has(key)) known.set(key, counter(spec, targets, dora));
    return known.get(key);
  }

  function counter(spec, targets, dora) {
    const picks = pick(spec, targets).map(({ module, hits, times }) => {
      const star = module.name.split(".").indexOf("*");
      const lowest = star < 0 ? 0 : hits.reduce((low, hit) => Math.min(low, Number(hit.split(".")[star])), Infinity);
      return { module, times, copies: hits.length, lowest };
    });
    const base = total(spec);
    return (rank) => {
      size("rank", rank, 1, LARGEST);
      const adapted = picks.map(({ module, times, ...pick }) => {
        const each = factors(module, rank * times, dora);
        return { module, ...pick, rank: rank * times, each, trainable: each * pick.copies };
      });
      const trainable = adapted.reduce((sum, { trainable }) => sum + trainable, 0);
      if (!Number.isSafeInteger(base + trainable)) fail("the numbers of this config are too large to count");
      return { spec, adapted, dora, rank, trainable, base, total: base + trainable, percent: (100 * trainable) / (base + trainable) };
    };
  }

  const count = (spec, { rank, ...options }) => counting(spec, options)(rank);

  // min(d, k), above which a rank expresses nothing more.
  function limit({ kind, shape, groups }) {
    return kind === "convolution" ? Math.min(shape[0], product(shape.slice(1)) * groups) : Math.min(...shape.slice(-2));
  }

  globalThis.loraFamilies = { build, count, counting, limit, total, copies, product, adaptable, leaf };
})();
