// The page Fit: a model, a method and a GPU in; whether it fits out, how far it could go, and what would make
// it fit. The address of the page says all of it.
(() => {
  "use strict";

  const form = document.getElementById("fit");
  if (!form || !window.loraFit) return;

  const { gpus, hub, models, memory: tables, capacity } = window.loraFit;
  const { plan, remedies: changes } = window.loraMemory;
  const { resolve, own: ownModel, withTargets, pack, unpack, combo } = window.loraFitModel;
  const views = window.loraFitViews,
    { METHODS, SIGNS, judged, size, gb } = views;
  const names = window.loraNames;
  const { make, press, whole } = window.loraPrograms;
  const { find, part, show } = window.loraPrograms.parts(form);
  const error = find(".fit-error"),
    boxes = find(".fit-names"),
    remedies = find(".fit-remedies");

  const START =
    "model=llama-3-8b&rank=16&targets=all-linear&method=LoRA&gpu=RTX+4090&max_length=2048";
  const OWN = "config.json",
    OTHER = "another GPU";
  const TRAINING = Object.keys(tables.usual).filter(part);
  const TYPED = ["rank", "batch_size", "max_length", "memory", "model"];
  const LISTS = Object.entries(tables.choices).filter(([name]) => part(name));

  let own = null,
    code = "",
    free = false;
  // one's own config, as the address has it; whether the length is free
  let kept = null; // a setting to compare with
  let typed = ""; // what to say of a model that was called by another name
  let result,
    announce,
    taken = 0; // taken: how often a model was given

  // ---- the setting: what the form shows and the address says

  function read() {
    const training = Object.fromEntries(
      TRAINING.map((name) => {
        const { type, checked, value } = part(name);
        return [name, type === "checkbox" ? checked : type === "number" ? Number(value) : value];
      }),
    );
    const targets = part("targets").value === "some" ? ticked() : part("targets").value;
    return {
      model: resolve(part("model").value) || part("model").value,
      own,
      code,
      method: part("method").value,
      gpu: part("gpu").value,
      memory: part("memory").value,
      rank: Number(part("rank").value),
      targets,
      dora: part("dora").checked,
      training,
    };
  }

  function address(setting) {
    const { model, method, gpu, memory, rank, targets, dora, training } = setting;
    const state = new URLSearchParams(setting.own ? { config: setting.code } : { model });
    state.set("rank", rank);
    state.set("targets", [targets].flat().join(","));
    state.set("method", method);
    state.set("gpu", gpu === OTHER ? memory : gpu);
    if (dora) state.set("dora", "1");
    for (const [name, value] of Object.entries(training))
      if (value !== tables.usual[name]) state.set(name, Number(value) || value || 0);
    return state;
  }

  // A setting from an address. What it does not name is as `plan` has it; an unknown name is an error later.
  async function parse(state) {
    const kinds = { number: Number, boolean: (given) => given !== "0", string: String };
    const training = Object.fromEntries(
      TRAINING.map((name) => {
        const usual = tables.usual[name],
          given = state.get(name);
        return [name, given === null ? usual : kinds[typeof usual](given)];
      }),
    );
    const asked = state.get("gpu") ?? "RTX 4090",
      gpu = names.gpu(asked) || asked,
      targets = state.get("targets") ?? "default",
      coded = state.get("config");
    return {
      model: coded ? OWN : resolve(state.get("model") ?? "llama-3-8b") || state.get("model"),
      own: coded && (await unpack(coded)),
      code: coded ?? "",
      method: state.get("method") ?? "LoRA",
      gpu: gpu in gpus ? gpu : OTHER,
      memory: gpu in gpus ? "24 GB" : gpu,
      rank: Number(state.get("rank") ?? 8),
      targets: ["default", "all-linear"].includes(targets) ? targets : targets.split(","),
      dora: state.get("dora") === "1",
      training,
      asked: state.has("max_length"),
    };
  }

  function fill(setting) {
    const { training } = setting;
    ({ own, code } = setting);
    for (const name of ["model", "memory", "rank"]) part(name).value = setting[name];
    for (const name of ["method", "gpu"]) part(name).value = setting[name];
    part("dora").checked = setting.dora;
    for (const name of TRAINING) {
      if (part(name).type === "checkbox") part(name).checked = training[name];
      else part(name).value = training[name];
    }
    part("targets").value = Array.isArray(setting.targets) ? "some" : setting.targets;
    offer(setting);
  }

  // The names that can be adapted, as boxes to tick.
  function offer({ targets }) {
    let model;
    try {
      model = modelOf(read());
    } catch {
      return;
    }
    const some = Array.isArray(targets) ? targets : [],
      chosen = some.length ? some : model.targets;
    boxes.replaceChildren(
      ...[...new Set([...model.names, ...some])].map((name) => {
        const label = make("label");
        label.append(
          make("input", "", "", {
            type: "checkbox",
            name: "name",
            value: name,
            checked: chosen.includes(name),
          }),
          ` ${name}`,
        );
        return label;
      }),
    );
    find('[name="targets"][value="default"]').disabled = !model.targets.length;
    if (!model.targets.length && part("targets").value === "default")
      part("targets").value = "all-linear";
    if (model.positions) part("max_length").max = model.positions;
    else part("max_length").removeAttribute("max");
  }

  const ticked = () => [...boxes.querySelectorAll("input:checked")].map(({ value }) => value);

  // ---- the answer

  function modelOf(setting) {
    if (setting.own) return ownModel(setting.own, arrived).terms;
    if (!resolve(setting.model))
      throw new Error(`model: "${setting.model}" is not among the presets`);
    return models[resolve(setting.model)];
  }

  function gpuOf({ gpu, memory }) {
    const meant = gpu === OTHER ? names.gpu(memory) : gpu,
      bytes = names.memory(memory);
    if (meant) return gpus[meant];
    if (!bytes)
      throw new Error(
        `memory must be a size such as 24 GB, or a GPU such as ${names.gpus(memory).join(", ")}, ` +
          `got "${memory}"`,
      );
    return {
      name: "a GPU",
      memory: bytes,
      room: Math.trunc(bytes * tables.room),
      note: "",
      bfloat16: true,
      nf4: true,
      sold: bytes / 2 ** 30,
      larger: tables.unnamed,
    };
  }

  function evaluate(setting) {
    const model = modelOf(setting),
      gpu = gpuOf(setting),
      { rank, dora, method, training } = setting;
    if (Array.isArray(setting.targets) && !setting.targets.length)
      throw new Error("Choose at least one module.");
    for (const [name, number] of Object.entries({ rank, ...training })) {
      if (typeof number === "number" && !(Number.isInteger(number) && number > 0))
        throw new Error(`${name} must be a whole number of at least 1, got ${number}`);
    }
    const { positions } = model;
    if (positions && training.max_length > positions)
      throw new Error(
        `max_length must be at most ${whole(positions)}, the positions of ${model.name}`,
      );
    const source = setting.own ? { config: setting.own } : { model: resolve(setting.model) };
    const targets = withTargets(model, source, setting.targets, arrived);
    const planned = plan(model, tables, { rank, targets, dora }, training);
    const way = planned[method],
      lora = planned.LoRA,
      trainable = lora.trained;
    const total = model.total + trainable,
      counted = { trainable, base: model.total, total, percent: (100 * trainable) / total };
    return {
      setting,
      targets,
      model,
      gpu,
      planned,
      way,
      counted,
      lora: lora.way,
      ...said(setting, model, gpu, way),
    };
  }

  const count = (number, one, many = `${one}s`) => `${whole(number)} ${number === 1 ? one : many}`;

  function said(setting, model, gpu, way) {
    const { told, left, words } = judged(way, gpu),
      most = way.largest(gpu.room);
    const sentence = words[0].toUpperCase() + words.slice(1);
    const longest = most.max_length === model.positions;
    const ends = [
      most.rank > 0 && setting.method !== "full" && `rank ${whole(most.rank)}`,
      most.max_length > 0 &&
        `sequence length ${whole(most.max_length)}${longest ? " (its longest)" : ""}`,
      most.batch_size > 0 && `batch size ${whole(most.batch_size)}`,
    ].filter(Boolean);
    const few = ends.length > 1 ? `${ends.slice(0, -1).join(", ")} or ${ends.at(-1)}` : ends[0];
    const could =
      told === "fits"
        ? `Up to ${few}.`
        : told === "tight"
          ? "Less than 10 % is free; CUDA and the allocator may need it."
          : "";
    const method =
      setting.method === "full"
        ? "full fine-tuning"
        : `${setting.method}, rank ${whole(setting.rank)}`;
    const { batch_size: batch, max_length: length } = setting.training;
    const title = `${model.name}, ${method}, batch ${whole(batch)} x ${count(length, "token")}`;
    return {
      verdict: told,
      sentence,
      could: ends.length || told !== "fits" ? could : "",
      most,
      left,
      title,
    };
  }

  // What would make it fit, as the package's plan says, and the setting with it
  function helps({ setting, targets, model, gpu }) {
    return changes(model, tables, { ...setting, targets }, gpu, gpus).map(
      ({ text, price, memory, options, narrow, gpu: other }) => ({
        text: `${other ? "on " : ""}${text}: ${gb(memory)} GB`,
        price,
        next: {
          ...setting,
          ...(other && { gpu: other }),
          ...(narrow && { targets: model.attention }),
          training: { ...setting.training, ...options },
        },
      }),
    );
  }

  function command({ setting, targets: named, model }) {
    const { method, rank, dora, training, gpu, memory } = setting,
      options = [];
    const targets = { default: model.targets, attention: model.attention }[named] ?? named;
    const word = (text) =>
      /^[\w.,@%+=:/-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
    const name = setting.own ? OWN : setting.model;
    options.push(
      name,
      "--gpu",
      word(gpu === OTHER ? memory.replace(/\s/g, "") : gpu),
      "--method",
      method,
    );
    if (method !== "full") {
      options.push("--rank", rank, "--targets", word([targets].flat().join(",")));
      if (dora) options.push("--dora");
    }
    for (const [option, value] of Object.entries(training)) {
      if (value === tables.usual[option] || (option === "dtype" && !applies(method, value)))
        continue;
      const named = `--${value === false ? "no-" : ""}${option.replace("_", "-")}`;
      options.push(named, ...(typeof value === "boolean" ? [] : [value]));
    }
    return `lora-np plan ${options.join(" ")}`;
  }

  // Full fine-tuning takes no few bits, and QLoRA nothing else.
  const applies = (method, dtype) =>
    method === "LoRA" || dtype in tables.items === (method === "full");

  // As lora_np.accounting.capacity: a range, where something was measured.
  function byHeart({
    setting: { rank, dora },
    counted: { trainable },
    lora: {
      limits: [least],
    },
  }) {
    if (dora || rank > Math.max(1, Math.floor(least / capacity.share))) return "not measured";
    return capacity.text.map((bits) => size(Math.round((bits * trainable) / 8))).join(" to ");
  }

  function notes({ setting, gpu, lora, way }) {
    const found = [gpu.note],
      { dtype } = way.training;
    if (!gpu.nf4 && dtype === "nf4") found.push(tables.no_nf4.replace("{}", gpu.name));
    if (!gpu.bfloat16 && dtype === "bfloat16") found.push(tables.emulated.replace("{}", gpu.name));
    if (setting.training.dtype !== dtype)
      found.push(
        `${setting.method === "full" ? "Full" : setting.method} holds the base in ${dtype}.`,
      );
    if (setting.rank > lora.limits[1])
      found.push("The rank is above min(d, k): no update can have a higher rank.");
    if (way.host) found.push(`${size(way.host)} of optimizer state can be paged to host memory.`);
    return found.filter(Boolean).join(" ");
  }

  const drawMaps = views.makeMaps(find(".fit-maps"), (gpu, method) => {
    part("gpu").value = gpu;
    part("method").value = method;
    update();
  });

  function draw(before) {
    const { setting, model, planned, gpu, way, counted, lora } = result,
      full = setting.method === "full";
    find(".fit-verdict").dataset.verdict = result.verdict;
    find(".fit-sign").textContent = SIGNS[result.verdict];
    show("could", result.could);
    show("verdict", `${result.sentence}.`);
    show(
      "about",
      setting.own
        ? `${whole(counted.base)} parameters, from your config`
        : [typed || hub[setting.model], `${whole(counted.base)} parameters`]
            .filter(Boolean)
            .join(" · "),
    );
    show("note", notes(result));
    remedies.replaceChildren(
      ...(result.verdict === "fits"
        ? []
        : helps(result).map(({ text, price, next }) => {
            const button = press(text, () => {
              fill(next);
              update();
              find('[name="method"]:checked').focus();
            });
            button.append(make("small", price));
            return button;
          })),
    );
    const help = remedies.children.length
      ? "This would fit:"
      : "No single GPU in the list has enough memory.";
    if (result.verdict !== "fits") show("could", `${result.could} ${help}`.trim());
    const rows = METHODS.map((name) => ({
      name,
      way: planned[name],
      gpu,
      chosen: name === setting.method,
    }));
    views.bars(
      find(".fit-bars"),
      find(".fit-legend"),
      before ? [...rows, { name: "kept", way: before.way, gpu: before.gpu, kept: true }] : rows,
    );
    drawMaps(planned, gpu.name, setting.method);
    const { trainable, base, total, percent } = counted;
    show("trainable", whole(full ? base : trainable));
    show("percent", full ? "100 %" : `${percent.toFixed(percent < 0.1 ? 4 : 2)} %`);
    show("base", whole(base));
    show("disk", size(way.disk).replace(/(?<=\d{3})\.\d+/, ""));
    show("heart", full ? "not measured" : byHeart(result));
    find(".fit-peft").textContent =
      `trainable params: ${whole(trainable)} || all params: ${whole(total)} || ` +
      `trainable%: ${percent.toFixed(4)}`;
    views.modules(
      find(".fit-modules"),
      new Map(
        Object.entries(lora.by).map(([name, [slope, fixed]]) => [
          name,
          slope * setting.rank + fixed,
        ]),
      ),
    );
    views.causes(find(".fit-causes tbody"), planned);
    show("command", command(result));
    compare(before);
    form.dataset.result = JSON.stringify({
      total: way.total,
      verdict: result.verdict,
      host: way.host,
      ...result.most,
    });
    announce = setTimeout(
      () =>
        show(
          "status",
          `${model.name}, ${setting.method}, ${gpu.name}: ${result.sentence}. ${result.could}`,
        ),
      700,
    );
  }

  function compare(before) {
    find(".fit-kept").hidden = !before;
    find('[data-act="keep"]').hidden = Boolean(before);
    if (!before) return;
    const number = (most) => (most === null ? "any" : whole(most));
    const told = ({
      setting: { method, rank, training },
      model,
      gpu,
      way,
      verdict,
      left,
      most,
      counted,
    }) => {
      const full = method === "full";
      return {
        model: model.name,
        method,
        rank: full ? "–" : whole(rank),
        GPU: gpu.name,
        "sequence length": whole(training.max_length),
        "batch size": whole(training.batch_size),
        verdict: `${SIGNS[verdict]} ${verdict === "no" ? "does not fit" : verdict}`,
        memory: size(way.total),
        left: left < 0 ? `−${size(-left)}` : size(left),
        "largest rank": full ? "–" : number(most.rank),
        "largest sequence length": number(most.max_length),
        "largest batch size": number(most.batch_size),
        "trainable parameters": whole(full ? counted.base : counted.trainable),
        "saved on disk": size(way.disk),
      };
    };
    const [first, second] = [before, result].map(told);
    views.sideBySide(
      find(".fit-kept tbody"),
      Object.keys(first).map((name) => [name, first[name], second[name]]),
    );
  }

  function erase(message) {
    clearTimeout(announce);
    result = undefined;
    delete form.dataset.result;
    find(".fit-verdict").dataset.verdict = "unknown";
    find(".fit-sign").textContent = "?";
    show("verdict", "No answer yet.");
    for (const name of ["could", "note", "about"]) show(name, "");
    for (const name of ["trainable", "percent", "base", "disk", "heart", "command"])
      show(name, "–");
    for (const place of [remedies, find(".fit-bars"), find(".fit-legend"), find(".fit-modules")])
      place.replaceChildren();
    for (const place of [".fit-bars", ".fit-modules"]) find(place).ariaLabel = "not known";
    find(".fit-peft").textContent = "";
    views.causes(find(".fit-causes tbody"), null);
    drawMaps(null, part("gpu").value, part("method").value);
    error.textContent = message;
    error.hidden = false;
    for (const name of TYPED)
      if (message.startsWith(`${name} must`) || message.startsWith(`${name}:`))
        part(name).ariaInvalid = "true";
    if (!message.startsWith("model:")) return;
    const name = names.typed(part("model").value);
    const link = make("a", "its config.json", "", {
      href: `https://huggingface.co/${encodeURI(name)}/raw/main/config.json`,
      rel: "noreferrer",
    });
    error.append(
      ...(/^[\w.-]+\/[\w.-]+$/.test(name)
        ? [". Copy ", link, " and paste it into the field."]
        : [": choose one, give its name on the hub, or paste its config.json."]),
    );
    remedies.append(
      "Closest: ",
      ...names.models(name).map((each) => press(each, () => choose(each))),
    );
  }

  // Draws what the form says. The address follows, unless something is wrong.
  function update() {
    clearTimeout(announce);
    error.hidden = true;
    for (const name of TYPED) part(name).ariaInvalid = null;
    boxes.hidden = part("targets").value !== "some";
    find(".fit-memory").hidden = part("gpu").value !== OTHER;
    for (const place of [".fit-lora", ".fit-counts"])
      find(place).hidden = part("method").value === "full";
    try {
      result = evaluate(read());
      draw(kept && evaluate(kept));
      part("power").value = Math.round(Math.log2(result.setting.rank));
      part("power").ariaValueText = `rank ${result.setting.rank}`;
      if (!own || code) history.replaceState(null, "", `#${link()}`);
    } catch (problem) {
      fail(problem);
    }
  }

  // To wait is no error.
  function fail(problem) {
    erase(
      problem instanceof SyntaxError ? `This is not JSON: ${problem.message}` : problem.message,
    );
    form.classList.toggle("used", Boolean(problem.waits));
    if (!problem.waits) return;
    error.hidden = true;
    show("could", problem.message);
    show("command", own ? `lora-np plan ${OWN} --gpu ${JSON.stringify(part("gpu").value)}` : "–");
  }

  // Python has answered; or it `failed`, as this says
  async function arrived(failed) {
    form.classList.remove("used");
    if (failed) return erase(failed);
    const config = own;
    try {
      if (config && !code) {
        const packed = await pack(ownModel(config, arrived).config);
        if (own !== config) return undefined; // something else was given meanwhile
        code = packed;
      }
      if (free) shorten();
    } catch (problem) {
      return fail(problem);
    }
    offer(read());
    return update();
  }

  function link() {
    const state = address(result.setting);
    if (kept) state.set("with", address(kept));
    return state;
  }

  async function recall() {
    const state = new URLSearchParams(location.hash.slice(1) || START),
      turn = ++taken;
    try {
      const other = state.has("with") ? await parse(new URLSearchParams(state.get("with"))) : null,
        setting = await parse(state);
      if (turn !== taken) return; // another address came, or a model was given
      typed = names.same(state.get("model") ?? "");
      kept = null;
      fill(setting);
      for (const { method, training } of [setting, other ?? setting]) {
        for (const [name, list] of [["method", METHODS], ...LISTS]) {
          const asked = { method, ...training }[name];
          if (!list.includes(asked))
            throw new Error(
              `The address asks for ${name} '${asked}', which is not in the list: choose one.`,
            );
        }
      }
      kept = other;
      free = !state.has("max_length");
      if (free) shorten();
      update();
    } catch (problem) {
      if (turn !== taken) return;
      update();
      if (!problem.waits) erase(problem.message);
    }
  }

  // A length that nobody asked for is no longer than the model's positions.
  function shorten() {
    const { positions } = modelOf(read());
    if (positions && Number(part("max_length").value) > positions)
      part("max_length").value = positions;
  }

  function choose(text) {
    typed = names.same(text);
    part("model").value = resolve(text) || text;
    if (text === OWN && own) return;
    another();
    if (resolve(text)) {
      shorten();
      offer(read());
    }
    update();
  }

  // Another model, whose modules are others
  function another() {
    taken += 1;
    [own, code] = [null, ""];
    if (part("targets").value === "some") part("targets").value = "all-linear";
  }

  function take(text) {
    another();
    try {
      const config = JSON.parse(text);
      if (config === null || typeof config !== "object" || Array.isArray(config))
        throw new Error("A config.json holds one object.");
      [own, free] = [config, true];
      part("model").value = OWN;
      update();
      if (result) arrived(); // the answer was there already
    } catch (problem) {
      fail(problem);
    }
  }

  async function open(file) {
    let text;
    try {
      text = await file.text();
    } catch {
      return erase(`${file.name} cannot be read: choose a config.json.`);
    }
    return take(text);
  }

  // ---- the hand

  for (const [name, list] of LISTS) part(name).append(...list.map((choice) => new Option(choice)));
  for (const [label, test] of Object.entries(views.GROUPS)) {
    const group = make("optgroup", "", "", { label });
    group.append(
      ...Object.values(gpus)
        .filter(({ name }) => test.test(name))
        .map(
          ({ name, sold }) => new Option(name.endsWith("GB") ? name : `${name} (${sold} GB)`, name),
        ),
    );
    part("gpu").append(group);
  }
  part("gpu").append(new Option("another memory", OTHER));

  const acts = {
    link: () => copy(location.href),
    command: () => copy(find('[data-show="command"]').textContent),
    svg: () => picture("svg"),
    png: () => picture("png"),
    keep: () => {
      kept = result.setting;
      update();
      say("Kept. Change something above, and see both side by side.");
    },
    drop: () => {
      kept = null;
      update();
      find('[data-act="keep"]').focus();
    },
    swap: () => {
      const other = kept;
      kept = result.setting;
      fill(other);
      update();
    },
  };
  const say = (text) => {
    clearTimeout(announce);
    show("status", text);
  };
  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return "Copied";
    } catch {
      return "Not copied: the browser does not allow it";
    }
  }
  const picture = (kind) =>
    views.save(views.image([result, ...(kept ? [evaluate(kept)] : [])], result.planned), kind);

  form.addEventListener("click", async ({ target }) => {
    const button = target.closest("[data-act]");
    if (!button || !result) return;
    const answer = await acts[button.dataset.act]();
    if (!answer) return;
    const usual = button.textContent;
    button.textContent = answer;
    say(answer);
    setTimeout(() => {
      button.textContent = usual;
    }, 1500);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("dragover", (event) => event.preventDefault());
  form.addEventListener("drop", (event) => {
    const file = event.dataTransfer.files[0];
    if (!file) return;
    event.preventDefault();
    open(file);
  });
  combo(part("model"), find("#fit-models"), { choose, paste: take });
  part("file").addEventListener(
    "change",
    () => part("file").files[0] && open(part("file").files[0]),
  );
  // while it is looked for
  for (const name of ["config", "file"])
    part(name).addEventListener("focus", () => window.loraPage.start());
  part("config").addEventListener(
    "input",
    () => part("config").value.trim() && take(part("config").value),
  );
  part("power").addEventListener("input", () => {
    part("rank").value = 2 ** Number(part("power").value);
  });
  form.addEventListener("input", ({ target }) => {
    // which moves what checkpointing keeps
    if (!part("checkpointing").checked) part("offloading").checked = false;
    part("offloading").disabled = !part("checkpointing").checked;
    if (!["model", "config", "file"].includes(target.name)) update();
  });
  part("memory").addEventListener("change", ({ target }) => {
    part("gpu").value = names.gpu(target.value) || OTHER;
    update();
  });
  window.addEventListener("hashchange", recall);
  recall();
})();
