// Adam (Kingma and Ba, algorithm 1) for a row of numbers: a function that moves them against their gradient.
globalThis.loraAdam = (length, { beta1 = 0.9, beta2 = 0.999, eps = 1e-8 } = {}) => {
  const m = new Float64Array(length),
    v = new Float64Array(length);
  let steps = 0;
  return (values, gradient, rate) => {
    steps += 1;
    const first = 1 - beta1 ** steps,
      second = 1 - beta2 ** steps;
    for (let i = 0; i < length; i += 1) {
      m[i] = beta1 * m[i] + (1 - beta1) * gradient[i];
      v[i] = beta2 * v[i] + (1 - beta2) * gradient[i] * gradient[i];
      values[i] -= (rate * (m[i] / first)) / (Math.sqrt(v[i] / second) + eps);
    }
  };
};
