// The header of a safetensors file: name, type, shape and place of each tensor; and numbers of the usual types.
self.loraSafetensors = (() => {
  "use strict";

  const MOST = 1e8; // bytes of a header, as in the format's own reader

  async function header(file) {
    const start = new DataView(await file.slice(0, 8).arrayBuffer());
    const length = start.byteLength === 8 ? Number(start.getBigUint64(0, true)) : NaN;
    if (!(length <= Math.min(MOST, file.size - 8)))
      throw new Error("This is not a safetensors file.");
    const entries = Object.entries(JSON.parse(await file.slice(8, 8 + length).text()));
    return entries
      .filter(([name]) => name !== "__metadata__")
      .map(
        ([
          name,
          {
            dtype,
            shape,
            data_offsets: [from, to],
          },
        ]) => ({
          name,
          dtype,
          shape: shape.map(Number),
          size: to - from,
          begin: 8 + length + from,
          end: 8 + length + to,
        }),
      );
  }

  // Modules of low rank: pairs of tensors whose names differ in nothing but lora_A and lora_B, or what else
  // programs call them; each is r vectors of a length, in the rows of its matrix or in its columns.
  function modules(tensors) {
    const found = new Map();
    for (const tensor of tensors) {
      const [, module, factor] =
        /^(?:base_model\.model\.)?(.+?)\.lora_(?:embedding_)?(a|A|b|B|down|up)(?:\.|$)/.exec(
          tensor.name,
        ) ?? [];
      if (!factor || tensor.shape.length !== 2) continue;
      const rows = /A|b|down/.test(factor),
        [r, length] = rows ? tensor.shape : [...tensor.shape].reverse();
      const part = { ...tensor, r, length, rows };
      found.set(module, { ...found.get(module), [/a|A|down/.test(factor) ? "A" : "B"]: part });
    }
    return new Map([...found].filter(([, { A, B }]) => A && B && A.r === B.r));
  }

  // Little-endian, as is every machine that a browser runs on
  async function numbers(file, { dtype, begin, end }) {
    const content = await file.slice(begin, end).arrayBuffer();
    if (dtype === "F32") return new Float32Array(content);
    if (dtype === "F64") return new Float64Array(content);
    if (!/^B?F16$/.test(dtype)) throw new Error(`Numbers of type ${dtype} are not read here.`);
    // the bits of a number of 32: those of BF16 are its first half, those of F16 have another bias
    const widened =
      dtype === "BF16" ? (x) => x << 16 : (x) => ((x & 0x8000) << 16) | ((x & 0x7fff) << 13);
    const found = new Float32Array(Uint32Array.from(new Uint16Array(content), widened).buffer);
    return dtype === "BF16" ? found : found.map((x) => x * 2 ** 112);
  }

  return { header, modules, numbers };
})();
