// What training needs in memory, by cause: lora_np.accounting.training_memory, whose docstring states the formulas; and what
// fits on a GPU: lora_np.accounting.plan. Tables and usual options are the package's own; its tests hold this file against it.
(() => {
  "use strict";

  const { total, copies, product, counting, limit } = globalThis.loraFamilies;
  const fail = (message) => { throw new Error(message); };
  const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
  const whole = (a, b) => Math.floor(a / b);
  const group = (n) => n.toLocaleString("en-US");

  const LARGEST = 2 ** 31 - 1; // a batch, or a length without positions
  const IN_8_BITS = 4096, PAGED = 100000; // numbers of a tensor, from which its state is smaller, or elsewhere
  const GROWING = ["activations", "logits", "workspace"];

  // `counted` is what `count` gave of a LoRA, or null in full fine-tuning.
  function memory(spec, counted, tables, options) {
    const training = read(spec, counted, tables, options);
    const { dtype, unquantised_dtype: unquantised, adapter_dtype: adapter, optimizer, master_copy: master } = training;
    const { items } = tables;
    const held = counted ? adapter : dtype;
    if (!(held in items)) fail(`dtype must be one of ${Object.keys(items).join(", ")} to train in full, got "${held}"`);
    const trained = counted ? counted.trainable : total(spec);
    const added = counted ? counted.total - counted.base : 0;
    const item = items[held];
    const kept = master && item < 4 ? 4 * trained : 0;
    const [gpu, host] = state(tensors(spec, counted), optimizer, kept ? 4 : item);
    const facts = { spec, counted, training, tables, item: items[dtype] ?? 2, hidden: items[dtype in items ? dtype : unquantised] };
    const parts = {
      weights: base(facts), adapter: added * items[adapter], gradients: trained * item, optimizer: kept + gpu,
      ...(spec.layers.length ? moment(facts) : { activations: null, logits: null, workspace: null }),
    };
    const all = sum(Object.values(parts).map((size) => size ?? 0));
    if (!Number.isSafeInteger(all)) fail("the memory of this config is too large to count");
    return { parts, total: all, host, most: (name, room) => most(facts, name, room - all + sum(GROWING.map((cause) => parts[cause]))) };
  }

  // The first number from `low` on, but at most `high`, for which more is needed than there is: Python's bisect_right.
  function bisect(low, high, room, needed) {
    while (low < high) {
      const middle = whole(low + high, 2);
      if (room < needed(middle)) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  // The largest "batch_size" or "max_length" whose growing part fits; null where the memory does not depend on it.
  function most(facts, name, room) {
    const needed = (number) => sum(Object.values(moment({ ...facts, training: { ...facts.training, [name]: number } })));
    if (needed(1) === needed(LARGEST)) return null;
    return bisect(1, (name === "max_length" && facts.spec.positions ? facts.spec.positions : LARGEST) + 1, room, needed) - 1;
  }

  // The largest rank that fits; `at` counts at a rank. Where a tensor's state turns smaller, memory falls.
  function rankWithin(at, room, tables, training) {
    const one = at(1), two = at(2), { spec } = one, { optimizer } = { ...tables.usual, ...training };
    const needed = (rank) => memory(spec, at(rank), tables, training).total;
    const end = Math.max(...one.adapted.map(({ module }) => limit(module)));
    const falls = new Set([1, end + 1]), [first, second] = [one, two].map((counted) => tensors(spec, counted));
    for (const size of [optimizer.endsWith("8bit") && IN_8_BITS, optimizer.startsWith("paged") && PAGED].filter(Boolean)) {
      first.forEach(([numbers], i) => {
        const more = second[i][0] - numbers;
        if (more > 0) falls.add(Math.max(Math.min(1 - whole(numbers - size, more), end), 1));
      });
    }
    const sorted = [...falls].sort((a, b) => a - b);
    for (let i = sorted.length - 2; i >= 0; i -= 1) {
      if (needed(sorted[i]) <= room) return bisect(sorted[i], sorted[i + 1], room, needed) - 1;
    }
    return 0;
  }

  function read(spec, counted, tables, options) {
    const training = { ...tables.usual, ...options };
    for (const [name, known] of Object.entries(tables.choices)) {
      if (!known.includes(training[name])) fail(`${name} must be one of ${known.join(", ")}, got "${training[name]}"`);
    }
    for (const name of ["batch_size", "max_length"]) {
      if (!Number.isInteger(training[name]) || training[name] < 1) fail(`${name} must be a whole number of at least 1, got ${training[name]}`);
    }
    if (spec.positions && training.max_length > spec.positions) {
      if ("max_length" in options) {
        fail(`max_length must be at most ${group(spec.positions)}, the positions of ${spec.name}, got ${group(training.max_length)}`);
      }
      training.max_length = spec.positions;
    }
    return training;
  }

  const quantised = (spec) => spec.modules.filter(({ kind, name, tied }) => ["linear", "experts"].includes(kind) && name !== spec.head && !tied);

  function base({ spec, training, tables: { items } }) {
    const { dtype, unquantised_dtype: unquantised, double_quantization: twice } = training;
    if (dtype in items) return total(spec) * items[dtype];
    const item = items[unquantised];
    return item * total(spec) + sum(quantised(spec).map((module) => {
      const numbers = product(module.shape), blocks = Math.ceil(numbers / 64);
      const constants = twice ? blocks + 4 * Math.ceil(blocks / 256) : 4 * blocks;
      const size = dtype === "int8" ? numbers + 4 * product(module.shape.slice(0, -1)) : Math.ceil(numbers / 2) + constants;
      return (size - item * numbers) * copies(module);
    }));
  }

  // Of the optimizer, on the GPU and in the memory of the host.
  function state(trained, optimizer, item) {
    const places = [0, 0];
    const each = { sgd: 0, momentum: item, adamw: 2 * item, paged_adamw: 8 };
    for (const [numbers, factored, times] of trained) {
      const size = optimizer.endsWith("8bit")
        ? (numbers < IN_8_BITS ? 8 * numbers : 2 * (numbers + 4 * Math.ceil(numbers / 256)))
        : optimizer === "adafactor" ? 4 * factored : numbers * each[optimizer];
      places[Number(optimizer.startsWith("paged") && numbers >= PAGED)] += size * times;
    }
    return places;
  }

  // Numbers, rows plus columns (a vector's length), and copies of each tensor that is trained.
  function tensors(spec, counted) {
    if (counted) {
      return counted.adapted.flatMap(({ module: { shape, kind, groups }, rank, each, copies: times }) => {
        const inputs = kind === "embedding" ? shape[0] : kind === "experts" ? shape[0] * shape.at(-1) : product(shape.slice(1)) * groups;
        const magnitudes = counted.dora ? shape.at(kind === "embedding" ? -1 : 0) : 0;
        const factor = each - rank * inputs - magnitudes; // B
        return [[rank * inputs, rank + inputs, times], [factor, rank + whole(factor, rank), times], [magnitudes, magnitudes, times]];
      });
    }
    return spec.modules.flatMap((module) => {
      const { shape, tied, tiedBias, bias } = module, numbers = product(shape), times = copies(module);
      const factored = shape.length === 1 ? numbers : product(shape.slice(0, -1)) + shape.at(-1);
      const found = tied ? [] : [[numbers, factored, times]];
      return bias && !tiedBias ? [...found, [shape[0], shape[0], times]] : found;
    });
  }

  // The moment that needs more: the loss, or the first layer that is computed again, when logits are gone.
  function moment(facts) {
    const { spec, training, tables: { items } } = facts;
    const { kept, layer } = activations(facts);
    const [logits, workspace] = loss(facts).map((size) => size * training.batch_size * training.max_length);
    const matrix = Math.max(0, ...quantised(spec).map(({ shape }) => product(shape.slice(-2))));
    const again = training.dtype in items ? 0 : 2 * matrix;
    const passing = Math.max(again, norms(facts));
    return kept + layer + passing > kept + logits + workspace
      ? { activations: kept + layer, logits: 0, workspace: passing }
      : { activations: kept, logits, workspace };
  }

  function activations(facts) {
    const { spec, counted, training, hidden } = facts;
    let kept = 0, layer = 0, below = !counted; // whether something is trained in an earlier stack
    for (const stack of spec.layers) {
      const modules = spec.modules.filter(({ name }) => name.startsWith(`${stack.prefix}.`));
      const here = counted ? counted.adapted.filter(({ module }) => modules.includes(module)) : [];
      const tokens = training.batch_size * (stack.tokens || training.max_length) * stack.repeats;
      below ||= here.length > 0;
      let size = below ? ofStack(facts, stack, modules, here, tokens) : 0;
      if (training.checkpointing && size) {
        layer = Math.max(layer, whole(size, stack.depth * stack.repeats));
        size = tokens * stack.depth * stack.width * hidden;
      }
      kept += size;
    }
    return { kept: kept + outside(facts), layer };
  }

  function ofStack(facts, stack, modules, here, tokens) {
    const { item, tables: { items }, training } = facts;
    const [attention, mlp] = reach(facts, stack, here);
    const norms = sum(modules.filter(({ kind }) => kind === "norm").map((module) => norm(facts, module, stack)));
    let each = ofAttention(facts, stack) * attention + inputs(facts, modules, stack, attention);
    each += whole(norms * attention + (functions(facts, modules, stack) + routing(facts, modules)) * mlp, Math.max(stack.depth, 1));
    each += items[training.adapter_dtype] * sum(here.map(({ rank, copies: times }) => rank * times));
    each += sum(here.map((adapted) => results(facts, adapted)));
    if (stack.dropout) each += 2 * attention * stack.width * item;
    const merged = here.filter(({ module: { kind } }) => ["experts", "router"].includes(kind));
    return tokens * each + sum(merged.map(({ module, copies: times }) => product(module.shape) * times)) * item;
  }

  // Of W0 x and B A x: DoRA scales both by a vector that is trained.
  function results({ counted, item, training, tables: { items } }, { module: { kind, shape }, copies: times }) {
    return counted.dora ? (item + items[training.adapter_dtype]) * shape.at(kind === "embedding" ? -1 : 0) * times : 0;
  }

  // PEFT sends an identity through A and B, and adds the result to W0: in the adapter's type.
  function norms({ counted, item, training, tables: { items } }) {
    if (!counted?.dora) return 0;
    const own = items[training.adapter_dtype], matrices = training.dtype in items && item === own ? 3 : 4;
    return own * Math.max(0, ...counted.adapted.map(({ module: { kind, shape }, rank }) => {
      const inputs = kind === "linear" ? shape.at(-1) : 0;
      return matrices * product(shape) + inputs * (inputs + rank);
    }));
  }

  // In how many layers attention, and the MLP's activation, lie above something that is trained.
  function reach({ counted, tables }, stack, here) {
    if (!counted || !here.length) return [stack.depth, stack.depth];
    const lowest = Math.min(...here.map((each) => each.lowest)), depth = stack.depth - lowest;
    const roles = here.filter((each) => each.lowest === lowest).map(({ module }) => module.role);
    return [
      roles.some((role) => tables.attention.includes(role)) ? depth : depth - 1,
      roles.some((role) => role !== "down") ? depth : depth - 1,
    ];
  }

  function ofAttention({ item, training }, stack) {
    const keeps = stack.attention_dropout || training.attention === "eager";
    let size = (stack.heads + (keeps ? stack.heads : stack.kv_heads)) * (stack.head_width + stack.value_width) * item;
    if (keeps) {
      const softmax = item < 4 && !stack.half_softmax ? 4 + item : item;
      const more = (stack.attention_dropout ? 2 * item : 0) + (stack.soft_cap ? item : 0);
      size += stack.heads * (stack.tokens || training.max_length) * (softmax + more);
    }
    return size * (stack.cross_attention ? 2 : 1);
  }

  function norm({ spec, counted, item }, module, stack) {
    let [width] = module.shape;
    if (stack && width === stack.head_width && width !== stack.width) width *= module.role === "key_norm" ? stack.kv_heads : stack.heads;
    if (module.bias) return width * copies(module) * item;
    const scaled = spec.layers.some((each) => each.float_norm) ? 4 : item;
    return width * copies(module) * (4 + (counted ? 0 : scaled));
  }

  const chosen = ({ spec }, { kind }) => (kind === "experts" ? spec.chosen : 1);
  // On how many of these modules the input must be kept for a weight's gradient.
  const trainedOn = ({ counted }, module) =>
    (counted ? sum(counted.adapted.filter((each) => each.module === module).map((each) => each.copies)) : copies(module));

  function functions(facts, modules, stack) {
    const widened = modules.filter(({ role }) => ["gate", "up", "gate_up"].includes(role));
    const gated = widened.some(({ role }) => role !== "up");
    return facts.item * sum(widened.map((module) => {
      const out = module.shape.at(-2) * chosen(facts, module) * copies(module);
      return gated ? whole(3 * out, 2) : (facts.tables.kept[stack.activation] ?? 1) * out;
    }));
  }

  function routing(facts, modules) {
    return sum(modules.map((module) => {
      const { kind, role, shape } = module;
      if (kind === "experts" && role === "down") return shape.at(-2) * chosen(facts, module) * copies(module) * facts.item;
      return kind === "router" ? 4 * shape[0] * copies(module) + shape.at(-1) * trainedOn(facts, module) * facts.item : 0;
    }));
  }

  // Of maps that are trained or adapted: once for those that read the same array, unless each casts.
  function inputs(facts, modules, stack, reach) {
    const { counted, item, tables: { items }, training } = facts;
    const own = items[training.adapter_dtype], casts = counted && own !== item;
    const shared = new Map();
    let size = 0;
    for (const module of modules) {
      const { kind, role, name, shape } = module;
      if (!["linear", "experts"].includes(kind)) continue;
      const width = shape.at(-1) * chosen(facts, module);
      const cast = casts && kind === "linear";
      let numbers = trainedOn(facts, module) * width;
      const kept = role === "output" || (stack.activation === "relu" && role === "down");
      if (cast) {
        size += numbers * own;
        numbers = 0;
      }
      // bitsandbytes' int8 keeps what it multiplies, adapted or not
      if (training.dtype === "int8") numbers = whole(width * copies(module) * reach, Math.max(stack.depth, 1));
      if (!kept) {
        const key = role === "down" ? name : `${name.slice(0, Math.max(0, name.lastIndexOf(".")))}:${shape.at(-1)}`;
        shared.set(key, Math.max(shared.get(key) ?? 0, numbers));
      }
    }
    return size + item * sum([...shared.values()]);
  }

  // The last norm, the head's input, and what leads from a tower to the language model.
  function outside(facts) {
    const { spec, counted, training, item } = facts;
    const tower = spec.layers.find((stack) => stack.tokens);
    return training.batch_size * sum(spec.modules.map((module) => {
      const { name, kind, role, shape } = module;
      if (spec.layers.some(({ prefix }) => name.startsWith(`${prefix}.`))) return 0;
      const on = trainedOn(facts, module);
      let size = 0;
      if (kind === "norm" && (!counted || role !== "embedding_norm")) size += norm(facts, module);
      if (role === "linear") size += (shape[0] + shape.at(-1) * on) * item;
      if (name === spec.head) size += shape.at(-1) * on * item;
      if (counted) size += sum(counted.adapted.filter((each) => each.module === module).map((each) => results(facts, each)));
      const ofTower = tower && (role === "linear" || shape.at(-1) === tower.width);
      return size * (ofTower ? tower.tokens : training.max_length);
    }));
  }

  // Of cross-entropy, of each token: what is kept, and what else is there for a moment.
  function loss({ spec, training, hidden }) {
    const head = spec.modules.find(({ name }) => name === spec.head);
    if (!head) return [0, 0];
    const [vocabulary, width] = head.shape;
    if (training.cross_entropy === "fused") return [width * hidden, width * (hidden + 4)];
    const capped = spec.layers.some((stack) => stack.soft_cap) ? hidden : 0;
    const each = spec.layers.some((stack) => stack.half_loss) ? hidden : 4;
    return [vocabulary * (each + capped), vocabulary * (hidden + each)];
  }

  // Full fine-tuning, LoRA, and LoRA over few bits, each with the type in which it holds the base.
  function ways(tables, { dtype = tables.usual.dtype, ...options }) {
    const float = dtype in tables.items;
    const dtypes = { full: float ? dtype : "bfloat16", LoRA: dtype, QLoRA: float ? "nf4" : dtype };
    return Object.fromEntries(Object.entries(dtypes).map(([way, held]) => [way, { ...options, dtype: held }]));
  }

  // The memory of each way, as lora_np.accounting.compare_memory has it, and how far each could go in so much room.
  function plan(spec, tables, { rank, targets, dora }, options, methods = ["full", "LoRA", "QLoRA"]) {
    if (!spec.layers.length) fail(`plan needs the layers of a model, which ${spec.name} does not tell`);
    const at = counting(spec, { targets, dora }), counted = at(rank);
    const trained = ways(tables, options);
    return Object.fromEntries(methods.map((way) => {
      const training = trained[way];
      const full = way === "full", found = memory(spec, full ? null : counted, tables, training);
      const largest = (room) => ({
        rank: full ? 0 : rankWithin(at, room, tables, training),
        batch_size: found.most("batch_size", room),
        max_length: found.most("max_length", room),
      });
      return [way, { ...found, counted, training, largest, disk: full ? 2 * counted.base : 4 * counted.trainable }];
    }));
  }

  // What a GPU leaves for training, and whether so much fits.
  const room = (gpu, tables) => Math.trunc(gpu.memory * (1 - tables.reserved));
  const verdict = (total, gpu, tables) => (total <= room(gpu, tables) ? "fits" : total <= gpu.memory ? "tight" : "no");

  globalThis.loraMemory = { memory, plan, room, verdict };
})();
