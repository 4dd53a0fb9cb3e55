// The files of PEFT, llama.cpp and mlx-lm, told apart by what they hold, and read as lora_np.adapters.load reads them.
window.loraFormats = (() => {
  "use strict";

  const known = window.loraAdapters; // from the package: adapter_data.py
  const { fail, shown, isWhole, isObject, json, tensorsOf, ggufOf, numbersOf, ofBlocks } = window.loraTensors;
  const { OTHERS, moduleOf, read } = window.loraAdapter;
  const { patterns, matcher, ends } = window.loraExpressions;
  const LARGEST = 2 ** 30; // bytes of a file
  const KINDS = new Map([["F32", "F32"], ["F16", "F16"], ["BF16", "BF16"], ["Q8_0", "F32"]]); // how their numbers are kept here

  // The settings of PEFT: by the words for what a value must be, whether one is

  const isReal = (x) => (typeof x === "number" || x instanceof Number) && Math.abs(x) < 2 ** 63;
  const isNatural = (x) => isWhole(x) && x >= 1 && x < 2 ** 31;
  const areNames = (x) => Array.isArray(x) && x.every((name) => typeof name === "string" && name);
  const areNumbers = (x) => [x].flat().every(isWhole);
  const areTokens = (x) => (isObject(x)
    ? Object.keys(x).length > 0 && Object.values(x).every(areTokens)
    : Array.isArray(x) && x.length > 0 && x.every((n) => isWhole(n) && n >= 0 && n < 2 ** 31) && new Set(x).size === x.length);
  const FITS = {
    "a whole number from 1 on": isNatural,
    "a finite number": isReal,
    "from 0 to below 1": (x) => isReal(x) && x >= 0 && x < 1,
    "'none', 'all' or 'lora_only'": (x) => ["none", "all", "lora_only"].includes(x),
    "an object": isObject,
    "a list of names or one expression": (x) => typeof x === "string" || areNames(x),
    "a list of names": areNames,
    "whole numbers": (x) => (isWhole(x) || Array.isArray(x)) && areNumbers(x),
    "different whole numbers, or lists of them by module": areTokens,
    "true or false": (x) => typeof x === "boolean",
    "": () => true,
  };
  const ELSEWHERE = new Set(["target_parameters"]); // what only the package reads
  const PATTERNS = { rank_pattern: "r", alpha_pattern: "lora_alpha" };
  const isEmpty = (x) => x === null || x === false || x === "" || ((typeof x === "number" || x instanceof Number) && Number(x) === 0) || (typeof x === "object" && !(x instanceof Number) && !Object.keys(x).length);

  function checked(config) {
    if (config.peft_type !== "LORA") fail(`peft_type must be LORA, got ${shown(config.peft_type)}`);
    for (const [key, value] of Object.entries(config)) {
      if (ELSEWHERE.has(key) && !isEmpty(value)) fail(`${key} = ${shown(value)} is not read in this page; lora-np inspect reads it`);
      if (Object.hasOwn(known.settings, key)) check(key, key, value);
      else if (!isEmpty(value)) fail(`${shown(key)} = ${shown(value)} is not supported${Object.hasOwn(known.refused, key) ? `: ${known.refused[key]}` : ""}`);
    }
    for (const [key, rule] of Object.entries(PATTERNS)) {
      for (const [name, value] of Object.entries(config[key] ?? {})) check(`${key}[${shown(name)}]`, rule, value);
    }
  }

  function check(what, rule, value) {
    const wanted = known.settings[rule];
    if (value === null && rule !== "r" && rule !== "lora_alpha") return;
    if (!(FITS[wanted] ?? isEmpty)(value)) fail(`${what} must be ${wanted}, got ${shown(value)}`);
  }

  // What a checked config says of names
  function settingsOf(config) {
    checked(config);
    const ranks = patterns(config.rank_pattern, "rank_pattern"), alphas = patterns(config.alpha_pattern, "alpha_pattern");
    const targets = matcher(config), saved = config.modules_to_save ?? [], tokens = config.trainable_token_indices;
    return {
      rank: (name) => ranks(name, config.r ?? 8),
      alpha: (name) => Number(alphas(name, config.lora_alpha ?? 8)),
      place(name) {
        if (!targets(name) && !config.ensure_weight_tying) fail(`${shown(name)} is not among the config's target_modules; PEFT would ignore it`);
      },
      rows(name, tensor) {
        const said = isObject(tokens) ? Object.entries(tokens).find(([end]) => name.endsWith(end))?.[1] : tokens;
        if (!said) fail(`${shown(name)} is not among the config's trainable_token_indices`);
        if (tensor.shape.length !== 2 || tensor.shape[0] !== said.length) fail(`${shown(name)} must have ${said.length} rows, one for each of trainable_token_indices, got ${tensor.shape.join(" x ")}`);
      },
      // The base model's name of a parameter that is saved in full, if the config accounts for it
      full(path, modules) {
        const inner = path.split("."), parameter = inner.pop();
        if (parameter === "bias" && inner.at(-1) === "modules_to_save") fail(`${shown(path)} gives a bias a second time: trained, and saved in full`);
        if (inner.slice(1).some((part) => OTHERS.has(part))) fail(`${shown(path)} is not a key that PEFT writes for a LoRA`);
        const whole = inner.join("."), bare = whole.replace(/(\.base_layer)+$/, "");
        const replaced = bare !== whole && modules.has(bare), module = replaced ? bare : whole;
        const bias = parameter === "bias" && (config.bias ?? "none") !== "none";
        const embedding = parameter === "weight" && known.saved.includes(module.split(".").at(-1));
        const holders = module.split(".").map((_, i, parts) => parts.slice(0, i + 1).join("."));
        const full = holders.some((holder) => saved.some((name) => holder.endsWith(name)));
        if (!module || !(replaced || bias || embedding || full)) fail(`${shown(path)} belongs to no LoRA, modules_to_save or trained bias`);
        return `${module}.${parameter}`;
      },
    };
  }

  function readPeft(buffer, config) {
    const adapter = read(buffer, config, settingsOf(config));
    const start = config.init_lora_weights;
    return { ...adapter, start: start === undefined || known.starts.includes(start) ? null : String(start).toLowerCase() };
  }

  // The modules of another program: their names are those of PEFT, and their settings those of a fresh config.
  function adapterOf(form, modules, size) {
    const names = [...modules.keys()].sort();
    const dora = [...modules.values()].some(({ parts }) => parts.magnitude);
    const config = { ...known.fresh, use_dora: dora, target_modules: names };
    return { form, modules, full: new Map(), rows: new Map(), config, size, start: null };
  }

  // Tensors by what they adapt and their part, told by the ends of their keys
  function grouped(tensors, parts) {
    const found = new Map();
    for (const [key, tensor] of tensors) {
      const end = Object.keys(parts).find((each) => key.endsWith(each)) ?? fail(`${shown(key)} is no part of a LoRA in this format`);
      const place = key.slice(0, -end.length);
      if (!found.has(place)) found.set(place, {});
      found.get(place)[parts[end]] = tensor;
    }
    if (!found.size) fail("the file has no LoRA tensors");
    for (const [place, { A, B }] of found) if (!A || !B) fail(`${shown(place)} has only one factor`);
    return found;
  }

  // A tensor that the file has transposed, or whose rows it has in another order
  function seen(tensor, shape, index) {
    const read = () => {
      const values = numbersOf(tensor), found = new Float64Array(values.length);
      for (let i = 0, at = 0; i < shape[0]; i++) for (let j = 0; j < shape[1]; j++) found[at++] = values[index(i, j)];
      return found;
    };
    return { dtype: tensor.dtype, shape, read };
  }

  const turned = (tensor) => (tensor.shape.length === 2 ? seen(tensor, [...tensor.shape].reverse(), (i, j) => j * tensor.shape[1] + i) : tensor);

  // llama.cpp's file

  function readGguf(buffer) {
    const { tensors, metadata } = ggufOf(buffer, known.kinds);
    for (const [key, wanted] of [["general.type", "adapter"], ["adapter.type", "lora"]]) {
      if (metadata.get(key) !== wanted) fail(`${key} is ${shown(metadata.get(key))}, not '${wanted}': no LoRA for llama.cpp`);
    }
    if (metadata.has("adapter.alora.invocation_tokens")) fail(known.refused.alora_invocation_tokens);
    const architecture = metadata.get("general.architecture"), alpha = metadata.get("adapter.lora.alpha") ?? 0;
    if (typeof architecture !== "string" || !Object.hasOwn(known.gguf, architecture)) fail(`the names of the architecture ${shown(architecture)} are not known`);
    if (!isReal(alpha)) fail(`adapter.lora.alpha must be a finite number, got ${shown(alpha)}`);
    const { names, turned: moved } = known.gguf[architecture];
    const heads = Object.values(known.heads).map((key) => metadata.get(`${architecture}.${key}`));
    const modules = new Map();
    for (const [key, parts] of grouped(kept(tensors), { ".weight.lora_a": "A", ".weight.lora_b": "B" })) {
      const name = placed(key, names) ?? fail(`${shown(key)} has no place in a model of ${architecture}`);
      const embedding = key === "token_embd";
      if (embedding) parts.A = turned(parts.A);
      const module = moduleOf(name, parts, Number(alpha) || parts.A.shape[0], { embedding });
      if (moved) ordered(module, heads);
      if (modules.has(name)) fail(`${shown(name)} is adapted a second time`);
      modules.set(name, module);
    }
    return adapterOf("gguf", modules, buffer.byteLength);
  }

  function kept(tensors) {
    return new Map([...tensors].map(([name, { kind, shape, bytes }]) => {
      if (!KINDS.has(kind)) fail(`${shown(name)} is stored as ${kind}, which this page does not read${known.unread.includes(kind) ? "; lora-np inspect reads it" : ""}`);
      return [name, { dtype: KINDS.get(kind), shape, ...(kind === "Q8_0" ? { read: () => ofBlocks(bytes) } : { bytes }) }];
    }));
  }

  // A program's name of a module as PEFT's
  function placed(key, names) {
    let number;
    const pattern = key.replace(/(?<=\.)\d{1,6}(?=\.)/, (found) => ((number = found), "{}"));
    if (!Object.hasOwn(names, pattern)) return undefined;
    return names[pattern]?.replace("{}", number) ?? fail(`${shown(key)} belongs to experts, which this page does not read; lora-np inspect reads them`);
  }

  // The rows of q and k in transformers' order: llama.cpp rotates neighbours, transformers halves of a head.
  function ordered(module, [queries, keys]) {
    const part = ["q_proj", "k_proj"].find((each) => module.name.includes(`.self_attn.${each}`));
    if (!part) return;
    const heads = part === "q_proj" ? queries : keys || queries, { B } = module.parts, half = B.shape[0] / heads / 2;
    if (!isNatural(queries) || !isNatural(heads)) {
      module.lost = `llama.cpp keeps the rows of ${shown(module.name)} in an order that depends on the base, which this file does not describe: convert it first, with lora-np convert --base MODEL --to peft`;
    } else if (!Number.isInteger(half)) {
      module.lost = `${shown(module.name)} has ${B.shape[0]} outputs, which ${heads} heads do not share`;
    } else {
      const row = (n) => n - (n % (2 * half)) + 2 * (n % half) + Math.floor((n % (2 * half)) / half);
      module.parts.B = seen(B, B.shape, (i, j) => row(i) * B.shape[1] + j);
    }
  }

  // mlx-lm's files

  function readMlx(buffer, config) {
    const { fine_tune_type: kind = "lora", lora_parameters: parameters } = config;
    if (kind !== "lora" && kind !== "dora") fail(`fine_tune_type must be 'lora' or 'dora', got ${shown(kind)}`);
    const scale = isObject(parameters) ? parameters.scale : undefined;
    if (!isReal(scale)) fail(`lora_parameters must have a number scale, got ${shown(parameters)}`);
    const modules = new Map();
    for (const [key, stored] of grouped(tensorsOf(buffer), { ".lora_a": "A", ".lora_b": "B", ".m": "magnitude" })) {
      const parts = Object.fromEntries(Object.entries(stored).map(([part, tensor]) => [part, turned(tensor)]));
      if (Boolean(parts.magnitude) !== (kind === "dora")) fail(`${shown(key)} must have m if it is a dora, and only then`);
      const name = placed(key, known.mlx) ?? (key.endsWith(".mlp.gate") ? fail(`${shown(key)} is a router, which this page does not read`) : key);
      const last = ends(key).at(-1), embedding = known.embeddings.includes(last) || last.replace(/^embed_out/, "").includes("embed");
      modules.set(name, moduleOf(name, parts, Number(scale) * parts.A.shape[0], { embedding }));
    }
    return adapterOf("mlx", modules, buffer.byteLength);
  }

  // Which is which

  async function bytesOf(file) {
    if (file.size > LARGEST) fail(`${file.name} has ${(file.size / 1e9).toFixed(1)} GB, more than this page reads: use lora-np inspect`);
    try {
      return await file.arrayBuffer();
    } catch {
      return fail(`${file.name} cannot be read; if it is a folder, choose the files in it`);
    }
  }

  // By what it holds, and only where that is neither by its name
  function kindOf(buffer, name) {
    const start = new TextDecoder("latin1").decode(new Uint8Array(buffer, 0, Math.min(64, buffer.byteLength)));
    if (start.startsWith("GGUF")) return "gguf";
    if (start[8] === "{" && new DataView(buffer).getBigUint64(0, true) <= buffer.byteLength - 8) return "weights";
    if (/^\s*[[{]/.test(start)) return "config";
    return new Map([["gguf", "gguf"], ["json", "config"]]).get(name.toLowerCase().split(".").at(-1)) ?? "weights";
  }

  // The adapter in some files: one of GGUF, or weights in safetensors and a config in JSON.
  async function open(files) {
    if (files.length > 20) fail(`there are ${files.length} files: choose those of one adapter`);
    const found = { gguf: [], config: [], weights: [] };
    for (const file of files) {
      const buffer = await bytesOf(file);
      found[kindOf(buffer, file.name)].push({ name: file.name, buffer });
    }
    const { gguf, config, weights } = found;
    for (const [kind, what] of [["gguf", "GGUF files"], ["config", "configs"], ["weights", "files of weights"]]) {
      if (found[kind].length > 1) fail(`there are ${found[kind].length} ${what} (${found[kind].map(({ name }) => name).join(", ")}): choose the files of one adapter`);
    }
    if (gguf.length) return weights.length ? fail("a GGUF file is a whole adapter: choose no other with it") : { ...readGguf(gguf[0].buffer), name: gguf[0].name };
    if (!weights.length || !config.length) fail(`${weights.length ? "its adapter_config.json" : "a file of weights"} is missing: choose both files at once`);
    const said = json(new Uint8Array(config[0].buffer), config[0].name), { buffer, name } = weights[0];
    const mlx = !("peft_type" in said) && ("lora_parameters" in said || "fine_tune_type" in said);
    return { ...(mlx ? readMlx(buffer, said) : readPeft(buffer, said)), name };
  }

  return { open, settingsOf, FITS };
})();
