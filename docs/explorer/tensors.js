// Files of tensors, read as lora_np.hub reads them: strict JSON, safetensors, GGUF. What is damaged is an error of one line.
// A number that a file writes as a fraction is a Number object: 4.0 is no whole number there, and JavaScript cannot tell.
window.loraTensors = (() => {
  "use strict";

  const SIZES = new Map([["F64", 8], ["F32", 4], ["F16", 2], ["BF16", 2]]);
  const MOST_TEXT = 2 ** 23; // bytes of a header or a config
  const DEEPEST = 100; // of JSON
  const MOST_ITEMS = 1e6; // names and texts of a GGUF file; the largest vocabularies have a quarter of this
  const MOST = 20000; // tensors, which is more than any adapter has

  const fail = (message) => { throw new Error(message); };
  const isWhole = (x) => typeof x === "number" && Number.isSafeInteger(x);
  const shown = (x) => {
    const text = typeof x === "string" ? `'${x}'` : x === undefined ? "nothing" : JSON.stringify(x);
    return text.length > 80 ? `${text.slice(0, 60)}…` : text;
  };

  function text(bytes, what) {
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
      return fail(`${what} is not UTF-8`);
    }
  }

  // JSON

  const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
  const WORD = /[a-z]*/y;
  const WORDS = new Map([["true", true], ["false", false], ["null", null]]);

  // What JSON.parse makes of it, but that equal keys, -0, halves of characters and great depth are errors.
  function json(bytes, what) {
    if (bytes.length > MOST_TEXT) fail(`${what} has ${bytes.length} bytes, more than this page reads`);
    const source = text(bytes, what);
    let at = 0;
    const bad = (why) => fail(`${what} is not JSON as every program reads it: ${why}`);
    const space = () => { while (at < source.length && " \t\n\r".includes(source[at])) at += 1; };
    const take = (sign) => {
      space();
      if (source[at] !== sign) bad(`${shown(sign)} is missing at character ${at}`);
      at += 1;
    };
    const next = (sign) => {
      space();
      if (source[at] !== sign) return false;
      at += 1;
      return true;
    };

    function string() {
      space();
      const begin = at;
      take('"');
      while (source[at] !== '"') {
        if (at >= source.length) bad("a text does not end");
        at += source[at] === "\\" ? 2 : 1;
      }
      at += 1;
      let found;
      try {
        found = JSON.parse(source.slice(begin, at));
      } catch {
        bad(`the text at character ${begin}`);
      }
      return /\p{Surrogate}/u.test(found) ? bad(`half a character at character ${begin}`) : found;
    }

    function number() {
      NUMBER.lastIndex = at;
      const [token] = NUMBER.exec(source) ?? bad(`character ${at}`);
      at += token.length;
      if (token === "-0" || token.length > 4000) bad(`the number at character ${at}`);
      return /^-?\d+$/.test(token) ? Number(token) : new Number(token);
    }

    function value(depth) {
      if (depth > DEEPEST) bad("it is nested too deeply");
      space();
      if (source[at] === '"') return string();
      if (next("{")) {
        const found = Object.create(null); // which has no names of its own
        while (!next("}")) {
          const key = string();
          if (key in found) bad(`the key ${shown(key)} occurs twice`);
          take(":");
          found[key] = value(depth + 1);
          if (!next(",")) { take("}"); break; }
          space();
          if (source[at] !== '"') bad(`character ${at}`);
        }
        return found;
      }
      if (next("[")) {
        const found = [];
        while (!next("]")) {
          found.push(value(depth + 1));
          if (!next(",")) { take("]"); break; }
          space();
          if (source[at] === "]") bad(`character ${at}`);
        }
        return found;
      }
      WORD.lastIndex = at;
      const [name] = WORD.exec(source);
      if (!WORDS.has(name)) return number();
      at += name.length;
      return WORDS.get(name);
    }

    const found = value(0);
    space();
    if (at < source.length) bad(`character ${at}`);
    return isObject(found) ? found : fail(`${what} must be an object of JSON, got ${shown(found)}`);
  }

  const isObject = (x) => typeof x === "object" && x !== null && !Array.isArray(x) && !(x instanceof Number);

  // Numbers

  function half(bits) {
    const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, rest = bits & 1023;
    if (exponent === 31) return rest ? NaN : sign * Infinity;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + rest / 1024) : 2 ** -14 * (rest / 1024));
  }

  // Little-endian, as is every machine that a browser runs on
  function numbers(bytes, dtype) {
    const { buffer } = bytes.slice(); // which begins at a multiple of any size
    if (dtype === "F64") return new Float64Array(buffer);
    if (dtype === "F32") return new Float64Array(new Float32Array(buffer));
    const halves = new Uint16Array(buffer);
    if (dtype === "F16") return Float64Array.from(halves, half);
    return new Float64Array(new Float32Array(Uint32Array.from(halves, (bits) => bits << 16).buffer));
  }

  // Blocks of a scale and 32 codes, as GGUF has them
  function ofBlocks(bytes) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const found = new Float64Array((32 * bytes.byteLength) / 34);
    for (let i = 0; i < found.length; i++) {
      const block = 34 * Math.floor(i / 32);
      found[i] = half(view.getUint16(block, true)) * view.getInt8(block + 2 + (i % 32));
    }
    return found;
  }

  const numbersOf = (tensor) => (tensor.read ? tensor.read() : numbers(tensor.bytes, tensor.dtype));

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
    const bytes = new Uint8Array(values.length * SIZES.get(dtype));
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

  const bytesOf = (tensor) => tensor.bytes ?? stored(numbersOf(tensor), tensor.dtype);
  const sizeOf = ({ dtype, shape }) => shape.reduce((a, b) => a * b, 1) * SIZES.get(dtype);

  // safetensors

  function tensorsOf(buffer) {
    if (buffer.byteLength < 8) fail("the file is too short to be safetensors");
    const length = Number(new DataView(buffer).getBigUint64(0, true)), start = 8 + length;
    if (start > buffer.byteLength) fail("this is not a safetensors file: its header does not fit");
    const header = json(new Uint8Array(buffer, 8, length), "the header of the safetensors file");
    const notes = header.__metadata__ ?? Object.create(null);
    if (!isObject(notes) || Object.values(notes).some((x) => typeof x !== "string")) fail("__metadata__ is not a map from text to text");
    delete header.__metadata__;
    const places = Object.entries(header).map(([key, entry]) => place(key, entry));
    if (places.length > MOST) fail(`the file has ${places.length} tensors; this page reads ${MOST}`);
    const tensors = new Map();
    let end = 0;
    for (const { key, dtype, shape, begin, size } of places.toSorted((a, b) => a.begin - b.begin || a.size - b.size)) {
      if (begin !== end) fail(`${shown(key)} ${begin < end ? "overlaps the tensor before it" : "leaves a gap before it"}`);
      end += size;
      if (start + end > buffer.byteLength) fail(`${shown(key)} ends after the file`);
      tensors.set(key, { dtype, shape, bytes: new Uint8Array(buffer, start + begin, size) });
    }
    if (start + end !== buffer.byteLength) fail(`the tensors end at byte ${start + end}, the file at ${buffer.byteLength}`);
    return new Map(places.map(({ key }) => [key, tensors.get(key)])); // in the order of the header
  }

  function place(key, entry) {
    if (!isObject(entry)) fail(`${shown(key)} is described by ${shown(entry)}`);
    const { dtype, shape, data_offsets: offsets } = entry;
    if (!SIZES.has(dtype)) fail(`${shown(key)} has dtype ${shown(dtype)}; an adapter has F64, F32, F16 or BF16`);
    const naturals = (x) => Array.isArray(x) && x.length <= 64 && x.every((n) => isWhole(n) && n >= 0);
    if (!naturals(shape)) fail(`${shown(key)} has shape ${shown(shape)}`);
    if (!naturals(offsets) || offsets.length !== 2) fail(`${shown(key)} has data_offsets ${shown(offsets)}`);
    const [begin, end] = offsets, size = sizeOf({ dtype, shape });
    if (end - begin !== size) fail(`${shown(key)} of ${dtype} and shape ${shown(shape)} does not lie in the file as its header says`);
    return { key, dtype, shape, begin, size };
  }

  // The header of a file of these tensors, of which only dtype and shape are needed
  function headerOf(tensors) {
    const header = { __metadata__: { format: "pt" } };
    let end = 0;
    for (const [key, tensor] of tensors) {
      header[key] = { dtype: tensor.dtype, shape: tensor.shape, data_offsets: [end, end += sizeOf(tensor)] };
    }
    const written = new TextEncoder().encode(JSON.stringify(header));
    const padded = new Uint8Array(written.length + ((8 - (written.length % 8)) % 8)).fill(32);
    padded.set(written);
    return { header: padded, size: 8 + padded.length + end };
  }

  function fileOf(tensors) {
    const { header, size } = headerOf(tensors), file = new Uint8Array(size);
    new DataView(file.buffer).setBigUint64(0, BigInt(header.length), true);
    file.set(header, 8);
    let at = 8 + header.length;
    for (const tensor of tensors.values()) {
      const bytes = bytesOf(tensor);
      file.set(bytes, at);
      at += bytes.length;
    }
    return file;
  }

  // GGUF

  const SCALARS = new Map(Object.entries({
    0: [1, (v) => v.getUint8(0)], 1: [1, (v) => v.getInt8(0)], 2: [2, (v) => v.getUint16(0, true)], 3: [2, (v) => v.getInt16(0, true)],
    4: [4, (v) => v.getUint32(0, true)], 5: [4, (v) => v.getInt32(0, true)], 6: [4, (v) => new Number(v.getFloat32(0, true))],
    7: [1, (v) => v.getUint8(0)], 10: [8, (v) => Number(v.getBigUint64(0, true))], 11: [8, (v) => Number(v.getBigInt64(0, true))],
    12: [8, (v) => new Number(v.getFloat64(0, true))],
  }).map(([kind, scalar]) => [Number(kind), scalar]));
  const TEXT = 8, ARRAY = 9, BOOLEAN = 7, LONGEST_NAME = 2 ** 16 - 1;

  // `kinds`: by number the name of a kind, how many numbers a block has, and its bytes
  function ggufOf(buffer, kinds) {
    let at = 0;
    const left = () => buffer.byteLength - at;
    const take = (size, what) => {
      if (size > left()) fail(`${what} takes ${size} bytes, but the file ends ${left()} further`);
      at += size;
      return new DataView(buffer, at - size, size);
    };
    const u32 = (what) => take(4, what).getUint32(0, true);
    const u64 = (what) => Number(take(8, what).getBigUint64(0, true));
    const string = (what, most = Infinity) => {
      const size = u64(what);
      if (size > most) fail(`${what} has ${size} bytes; at most ${most} are allowed`);
      const view = take(size, what);
      return text(new Uint8Array(buffer, view.byteOffset, size), what);
    };
    const count = (what, least) => {
      const found = u64(what);
      if (found * least > left()) fail(`${what} is ${found}, for which ${left()} bytes are too few`);
      if (least >= 8 && found > MOST_ITEMS) fail(`${what} is ${found}; this page reads ${MOST_ITEMS}`);
      return found;
    };
    const scalar = (kind, key) => {
      const [size, read] = SCALARS.get(kind) ?? fail(`${shown(key)} has type ${kind}, which the format does not have`);
      const found = read(take(size, `the value of ${shown(key)}`));
      if (kind !== BOOLEAN) return found;
      return found > 1 ? fail(`${shown(key)} is boolean but holds ${found}`) : found === 1;
    };
    const list = (key) => {
      const kind = u32(`the type of ${shown(key)}`);
      if (kind === ARRAY) fail(`${shown(key)} is an array of arrays, which is not read`);
      if (kind === TEXT) {
        for (let n = count(`the length of ${shown(key)}`, 8); n > 0; n--) string(`an entry of ${shown(key)}`);
        return [];
      }
      const [size] = SCALARS.get(kind) ?? fail(`${shown(key)} has type ${kind}, which the format does not have`);
      const n = count(`the length of ${shown(key)}`, size);
      if (kind === BOOLEAN) for (let i = 0; i < n; i++) scalar(kind, key);
      else take(n * size, `the value of ${shown(key)}`);
      return []; // no list says anything of an adapter
    };

    if (text(new Uint8Array(buffer, 0, Math.min(4, buffer.byteLength)), "the magic number") !== "GGUF") fail("the file does not begin with GGUF");
    at = 4;
    const version = u32("the version");
    if (version !== 2 && version !== 3) fail(`the version of the GGUF file is ${version}, not 2 or 3`);
    const many = count("the number of tensors", 24);
    const metadata = new Map();
    for (let n = count("the number of metadata", 13); n > 0; n--) {
      const key = string("a key of the metadata", LONGEST_NAME);
      if (metadata.has(key)) fail(`the metadata have two entries ${shown(key)}`);
      const kind = u32(`the type of ${shown(key)}`);
      metadata.set(key, kind === TEXT ? string(`the value of ${shown(key)}`) : kind === ARRAY ? list(key) : scalar(kind, key));
    }
    if (many > MOST) fail(`the file has ${many} tensors; this page reads ${MOST}`);
    const alignment = metadata.get("general.alignment") ?? 32;
    if (!isWhole(alignment) || alignment < 1 || !Number.isInteger(Math.log2(alignment))) fail(`general.alignment must be a power of two, got ${shown(alignment)}`);
    const padded = (size) => Math.ceil(size / alignment) * alignment;
    const described = Array.from({ length: many }, () => description(string, u32, u64, kinds));
    const start = padded(at), tensors = new Map();
    let position = 0;
    for (const { name, kind, shape, size, offset } of described) {
      if (tensors.has(name)) fail(`the file has two tensors ${shown(name)}`);
      if (offset !== position) fail(`${shown(name)} begins at ${offset}; after the one before, ${position} is its place`);
      if (start + offset + size > buffer.byteLength) fail(`${shown(name)} of kind ${kind} and shape ${shape.join(" x ")} ends after the file`);
      tensors.set(name, { kind, shape, bytes: new Uint8Array(buffer, start + offset, size) });
      position += padded(size);
    }
    return { tensors, metadata };
  }

  function description(string, u32, u64, kinds) {
    const name = string("the name of a tensor", LONGEST_NAME);
    const axes = u32(`the number of axes of ${shown(name)}`);
    if (axes < 1 || axes > 4) fail(`${shown(name)} has ${axes} axes; between 1 and 4 are allowed`);
    const shape = Array.from({ length: axes }, () => u64(`the shape of ${shown(name)}`)).reverse();
    const number = u32(`the kind of ${shown(name)}`);
    if (!Object.hasOwn(kinds, number)) fail(`${shown(name)} is of kind ${number}, which is not known`);
    const [kind, block, bytes] = kinds[number], size = shape.reduce((a, b) => a * b, 1);
    if (!(size > 0 && size < 2 ** 53)) fail(`${shown(name)} has shape ${shape.join(" x ")}, which no file can hold`);
    if (shape.at(-1) % block) fail(`${shown(name)} has rows of ${shape.at(-1)}; ${kind} needs whole blocks of ${block}`);
    return { name, kind, shape, size: (size / block) * bytes, offset: u64(`the place of ${shown(name)}`) };
  }

  return { fail, shown, isWhole, isObject, json, tensorsOf, ggufOf, fileOf, headerOf, numbersOf, ofBlocks, stored, halfBits, half };
})();
