// A small Llama in the page: the forward pass of lora_np.language, a token at a time, with W0 + (alpha/r) B
// A.
window.loraSpeak = (() => {
  "use strict";

  const { header, numbers } = window.loraSafetensors;

  // y = W x for W (d, k), row by row
  function times(W, x) {
    const k = x.length,
      y = new Float64Array(W.length / k);
    for (let i = 0, at = 0; i < y.length; i++) {
      let sum = 0;
      for (let j = 0; j < k; j++) sum += W[at++] * x[j];
      y[i] = sum;
    }
    return y;
  }

  function norm(x, W, eps) {
    let squares = 0;
    for (const entry of x) squares += entry * entry;
    const scale = 1 / Math.sqrt(squares / x.length + eps);
    return x.map((entry, i) => entry * scale * W[i]);
  }

  const add = (x, y) => x.map((entry, i) => entry + y[i]);

  function softmax(scores, temperature = 1) {
    const largest = Math.max(...scores),
      weights = Array.from(scores, (score) => Math.exp((score - largest) / temperature));
    const total = weights.reduce((a, b) => a + b, 0);
    return weights.map((weight) => weight / total);
  }

  // The numbers of a file, by name
  async function read(file) {
    const tensors = await header(file);
    return new Map(
      await Promise.all(
        tensors.map(async (tensor) => [
          tensor.name,
          Float64Array.from(await numbers(file, tensor)),
        ]),
      ),
    );
  }

  async function load(file, config, tokenizer) {
    const weights = await read(file);
    const vocabulary = tokenizer.model.vocab;
    const characters = [];
    for (const [character, token] of Object.entries(vocabulary)) characters[token] = character;
    const layers = [];
    for (const [name, W] of weights) {
      const [, number, kind] = name.match(/\.layers\.(\d+)\..*?(\w+)\.weight$/) ?? [];
      if (kind) (layers[number] ??= {})[kind] = W;
    }
    return {
      config,
      vocabulary,
      characters,
      layers,
      embedding: weights.get("model.embed_tokens.weight"),
      last: weights.get("model.norm.weight"),
    };
  }

  // The strongest `rank` directions of each module, added where `wanted(layer, kind)` says so: rows of B (r,
  // d) and A (r, k) in order, whose products are those of the adapter.
  function adapted(model, adapter, rank, wanted) {
    const layers = model.layers.map((layer) => ({ ...layer }));
    for (const [name, A] of adapter) {
      const [, path, number, kind] = name.match(/^(.*layers\.(\d+)\.\w+\.(\w+))\.A$/) ?? [];
      if (!path || !rank || !wanted(Number(number), kind)) continue;
      const B = adapter.get(`${path}.B`),
        W = layers[number][kind].slice();
      const full = (A.length * B.length) / W.length; // r k r d / (d k) is r squared
      const d = B.length / Math.sqrt(full),
        k = A.length / Math.sqrt(full);
      for (let r = 0; r < Math.min(rank, Math.sqrt(full)); r++) {
        for (let i = 0, at = 0; i < d; i++) {
          const left = B[r * d + i];
          for (let j = 0; j < k; j++) W[at++] += left * A[r * k + j];
        }
      }
      layers[number][kind] = W;
    }
    return { ...model, layers };
  }

  // Takes one token after the other, and gives the logits of the next.
  function reader(model) {
    const {
      hidden_size: d,
      num_attention_heads: heads,
      num_key_value_heads: kv,
      rms_norm_eps: eps,
      rope_theta: theta,
    } = model.config;
    const width = model.config.head_dim || d / heads,
      half = width / 2,
      group = heads / kv;
    const kept = model.layers.map(() => ({ k: [], v: [] }));
    let position = 0;

    function rotate(x) {
      const y = new Float64Array(x.length);
      for (let start = 0; start < x.length; start += width) {
        for (let i = 0; i < half; i++) {
          const angle = position * theta ** (-i / half),
            cos = Math.cos(angle),
            sin = Math.sin(angle);
          const a = x[start + i],
            b = x[start + half + i];
          y[start + i] = a * cos - b * sin;
          y[start + half + i] = b * cos + a * sin;
        }
      }
      return y;
    }

    function attention(layer, { k, v }, x) {
      const q = rotate(times(layer.q_proj, x));
      k.push(rotate(times(layer.k_proj, x)));
      v.push(times(layer.v_proj, x));
      const mixed = new Float64Array(heads * width);
      for (let h = 0; h < heads; h++) {
        const from = h * width,
          of = Math.floor(h / group) * width;
        const scores = k.map((key) => {
          let sum = 0;
          for (let i = 0; i < width; i++) sum += q[from + i] * key[of + i];
          return sum / Math.sqrt(width);
        });
        softmax(scores).forEach((weight, t) => {
          for (let i = 0; i < width; i++) mixed[from + i] += weight * v[t][of + i];
        });
      }
      return times(layer.o_proj, mixed);
    }

    function mlp(layer, x) {
      const up = times(layer.up_proj, x);
      return times(
        layer.down_proj,
        times(layer.gate_proj, x).map((gate, i) => (gate / (1 + Math.exp(-gate))) * up[i]),
      );
    }

    return (token) => {
      let x = Float64Array.from(model.embedding.subarray(token * d, (token + 1) * d));
      model.layers.forEach((layer, i) => {
        x = add(x, attention(layer, kept[i], norm(x, layer.input_layernorm, eps)));
        x = add(x, mlp(layer, norm(x, layer.post_attention_layernorm, eps)));
      });
      position += 1;
      return times(model.embedding, norm(x, model.last, eps)); // the head is tied to the embedding
    };
  }

  // The same numbers for the same seed, in every browser
  function random(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
    };
  }

  function drawn(logits, temperature, uniform) {
    if (temperature === 0) return logits.indexOf(Math.max(...logits));
    const weights = softmax(logits, temperature);
    let left = uniform();
    const found = weights.findIndex((weight) => (left -= weight) < 0);
    return found < 0 ? weights.length - 1 : found;
  }

  const logProbability = (logits, token) => Math.log(softmax(logits)[token]);

  // Yields characters, as many as fit the positions that the model knows, and the gain of each: by how much
  // its logarithm of the probability is above that of another model after the same text.
  function* generate(model, prompt, { temperature = 0.7, seed = 0, most = 240, other } = {}) {
    const read = reader(model),
      compare = other && reader(other),
      uniform = random(seed);
    const tokens = [...prompt]
      .map((character) => model.vocabulary[character])
      .filter((token) => token !== undefined);
    let logits, others;
    const take = (token) => {
      logits = read(token);
      others = compare?.(token);
    };
    tokens.forEach(take);
    const end = Math.min(model.config.max_position_embeddings, tokens.length + most);
    for (let i = tokens.length; i < end; i++) {
      const token = drawn(logits, temperature, uniform);
      yield {
        character: model.characters[token],
        gain: compare ? logProbability(logits, token) - logProbability(others, token) : 0,
      };
      take(token);
    }
  }

  return { load, read, adapted, reader, generate };
})();
