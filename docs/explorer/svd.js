// Singular values in the page: columns are rotated against each other until they are orthogonal (one-sided
// Jacobi). The same file is a worker, which takes a matrix by its columns and answers with U, s and V.
(() => {
  "use strict";

  const dot = (a, b) => {
    let sum = 0;
    for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
    return sum;
  };

  function jacobi(M) {
    const n = M.length,
      V = M.map((_, j) => Float64Array.from({ length: n }, (_, i) => Number(i === j)));
    for (let sweep = 0, turned = true; turned && sweep < 60; sweep++) {
      turned = false;
      for (let p = 0; p < n; p++) {
        for (let q = p + 1; q < n; q++) {
          const a = dot(M[p], M[p]),
            b = dot(M[q], M[q]),
            c = dot(M[p], M[q]);
          if (Math.abs(c) <= 1e-15 * Math.sqrt(a * b) || c === 0) continue;
          turned = true;
          const zeta = (b - a) / (2 * c);
          const t = (zeta < 0 ? -1 : 1) / (Math.abs(zeta) + Math.hypot(1, zeta));
          const cos = 1 / Math.hypot(1, t),
            sin = cos * t;
          for (const set of [M, V]) {
            for (let i = 0; i < set[p].length; i++) {
              const x = set[p][i];
              set[p][i] = cos * x - sin * set[q][i];
              set[q][i] = sin * x + cos * set[q][i];
            }
          }
        }
      }
    }
    const s = M.map((column) => Math.sqrt(dot(column, column)));
    const order = s.map((_, i) => i).sort((i, j) => s[j] - s[i]);
    return {
      s: order.map((i) => s[i]),
      U: order.map((i) => M[i].map((x) => (s[i] ? x / s[i] : 0))),
      V: order.map((i) => V[i]),
    };
  }

  if (typeof window === "undefined")
    self.addEventListener("message", ({ data }) => self.postMessage(jacobi(data)));
  else window.loraSvd = { dot, jacobi };
})();
