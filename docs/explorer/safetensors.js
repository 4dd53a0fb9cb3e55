// The header of a safetensors file: name, type, shape and place of each tensor; and numbers of two types.
window.loraSafetensors = (() => {
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

  // Modules of low rank: tensors whose names differ in nothing but lora_A and lora_B, or what else programs
  // call them
  function modules(tensors) {
    const found = new Map();
    for (const { name, shape } of tensors) {
      const [, module, factor] =
        /^(.+?)\.(?:lora_(?:embedding_)?)(a|A|b|B|down|up)(?:\.|$)/.exec(name) ?? [];
      if (factor && /a|A|down/.test(factor)) found.set(module, Math.min(...shape));
    }
    return found;
  }

  // Little-endian, as is every machine that a browser runs on
  async function numbers(file, { dtype, begin, end }) {
    const content = await file.slice(begin, end).arrayBuffer();
    if (dtype === "F32") return new Float32Array(content);
    if (dtype !== "BF16") throw new Error(`Numbers of type ${dtype} are not read here.`);
    return new Float32Array(
      Uint32Array.from(new Uint16Array(content), (bits) => bits << 16).buffer,
    );
  }

  return { header, modules, numbers };
})();
