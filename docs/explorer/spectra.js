// Singular values of updates B A, which are never formed, from the r x r Gram matrices of B and A: a worker of the
// inspector, and what NumPy calls in Python's worker, since its LAPACK is slow there.
(() => {
  "use strict";

  const SLICE = 128; // terms of a sum at a time: they stay in the cache
  const padded = (r) => 4 * Math.ceil(r / 4); // whole blocks of rows

  // C += X Y^T, of which the lower half counts unless `all`, for rows that are zero before `from`
  function multiply(C, X, Y, n, width, { all = false, from = () => 0, tick = () => {} } = {}) {
    for (let i = 0; i < n; i += 4) {
      for (let j = 0; j < (all ? n : i + 4); j += 2) {
        let [a, b, c, d, e, f, g, h] = [0, 0, 0, 0, 0, 0, 0, 0];
        const start = from(i, j);
        let p = i * width + start,
          q = j * width + start;
        for (const end = (j + 1) * width; q < end; p++, q++) {
          const y = Y[q],
            z = Y[q + width];
          a += X[p] * y;
          b += X[p] * z;
          c += X[p + width] * y;
          d += X[p + width] * z;
          e += X[p + 2 * width] * y;
          f += X[p + 2 * width] * z;
          g += X[p + 3 * width] * y;
          h += X[p + 3 * width] * z;
        }
        const at = i * n + j;
        C[at] += a;
        C[at + 1] += b;
        C[at + n] += c;
        C[at + n + 1] += d;
        C[at + 2 * n] += e;
        C[at + 2 * n + 1] += f;
        C[at + 3 * n] += g;
        C[at + 3 * n + 1] += h;
      }
      tick(4 / n);
    }
  }

  // Inner products of r vectors of a length, which are the rows of a matrix or its columns
  function gram(M, r, length, rows, tick = () => {}) {
    const n = padded(r),
      C = new Float64Array(n * n),
      slice = new Float64Array(n * SLICE);
    const [across, along] = rows ? [length, 1] : [1, r];
    for (let start = 0; start < length; start += SLICE) {
      for (let k = 0; k < SLICE; k++)
        for (let i = 0; i < r; i++)
          slice[i * SLICE + k] = start + k < length ? M[i * across + (start + k) * along] : 0;
      multiply(C, slice, slice, n, SLICE);
      tick(SLICE / length);
    }
    for (let i = 0; i < n; i++) for (let j = 0; j < i; j++) C[j * n + i] = C[i * n + j];
    return C;
  }

  // Upper triangular U with U^T U = C, without directions that are of rounding alone
  function root(C, n) {
    const U = C.slice();
    for (let j = 0; j < n; j++) {
      const row = j * n,
        pivot = U[row + j] > n * 2 ** -52 * C[row + j] ? Math.sqrt(U[row + j]) : 0;
      for (let k = 0; k < n; k++) U[row + k] = k < j || !pivot ? 0 : U[row + k] / pivot;
      for (let i = j + 1; pivot && i < n; i++) {
        const factor = U[row + i];
        for (let k = i; k < n; k++) U[i * n + k] -= factor * U[row + k];
      }
    }
    return U;
  }

  // Row i of M - v w^T - w v^T, up to its diagonal, and what it adds to the product with x
  function change(M, n, i, v, w, x, product) {
    const [vi, wi, xi] = [v[i], w[i], x[i]];
    const row = i * n;
    let sum = 0;
    for (let j = 0; j < i; j++) {
      const value = M[row + j] - vi * w[j] - wi * v[j];
      M[row + j] = value;
      sum += value * x[j];
      product[j] += value * xi;
    }
    M[row + i] -= 2 * vi * wi;
    product[i] += sum + M[row + i] * xi;
  }

  // What Householder's reflections make of a symmetric matrix: a diagonal, and what stands beside it
  function tridiagonal(M, n, tick) {
    const diagonal = new Float64Array(n),
      beside = new Float64Array(n),
      none = new Float64Array(n);
    let [v, w] = [none, none];
    for (let m = n - 1; m >= 0; m--) {
      change(M, n, m, v, w, none, new Float64Array(n));
      diagonal[m] = M[m * n + m];
      const next = M.slice(m * n, m * n + m),
        product = new Float64Array(m);
      const size = Math.hypot(...next),
        last = next[m - 1] ?? 0,
        length = Math.sqrt(2 * size * (size + Math.abs(last))) || 1;
      beside[m] = last < 0 ? size : -size;
      if (m) next[m - 1] -= beside[m];
      for (let j = 0; j < m; j++) next[j] /= length;
      for (let i = 0; i < m; i++) change(M, n, i, v, w, next, product);
      const along = product.reduce((sum, value, j) => sum + value * next[j], 0);
      [v, w] = [next, product.map((value, j) => 2 * (value - along * next[j]))];
      tick((3 * m * m) / n ** 3);
    }
    return [diagonal, beside];
  }

  // Eigenvalues of a tridiagonal matrix, in place of its diagonal d, by QL steps with implicit shifts
  function diagonalise(d, beside, n) {
    const e = new Float64Array(n + 1);
    e.set(beside.subarray(1));
    for (let l = 0; l < n;) {
      let m = l;
      while (m < n - 1 && Math.abs(e[m]) > 2 ** -52 * (Math.abs(d[m]) + Math.abs(d[m + 1]))) m++;
      if (m === l) {
        l++;
        continue;
      }
      const half = (d[l + 1] - d[l]) / (2 * e[l]);
      let g = d[m] - d[l] + e[l] / (half + (half < 0 ? -1 : 1) * Math.hypot(half, 1));
      let s = 1,
        c = 1,
        p = 0;
      for (let i = m - 1; i >= l; i--) {
        const f = s * e[i],
          b = c * e[i],
          r = Math.hypot(f, g);
        e[i + 1] = r;
        [s, c] = r ? [f / r, g / r] : [0, 1];
        g = d[i + 1] - p;
        const t = (d[i] - g) * s + 2 * c * b;
        p = s * t;
        d[i + 1] = g + p;
        g = c * t - b;
      }
      d[l] -= p;
      e[l] = g;
      e[m] = 0;
    }
    return d;
  }

  // U and U Gram(B) U^T, where U^T U is Gram(A): the eigenvalues of the latter are squares of singular values.
  function middle(ofB, ofA, tick = () => {}) {
    const n = Math.sqrt(ofA.length),
      U = root(ofA, n),
      UB = new Float64Array(n * n),
      M = new Float64Array(n * n);
    multiply(UB, U, ofB, n, n, { all: true, from: (i) => i, tick });
    multiply(M, UB, U, n, n, { from: (i, j) => j, tick });
    return [U, M];
  }

  // Singular values, strongest first, from the Gram matrices of B and of A
  function values(ofB, ofA, tick = () => {}) {
    const n = Math.sqrt(ofA.length),
      part = (share) => tick(share / 3),
      [, M] = middle(ofB, ofA, part);
    const squares = diagonalise(...tridiagonal(M, n, part), n)
      .sort()
      .reverse();
    const floor = n * 2 ** -52 * squares[0]; // below it, all is rounding
    return squares.map((square) => (square > floor ? Math.sqrt(square) : 0));
  }

  self.loraSpectra = { gram, middle, values };
  if (self.loadPyodide) return;

  // The worker's answers: how far it is, and then the singular values of each pair of tensors, by its name
  self.addEventListener("message", async ({ data: pairs }) => {
    const found = [];
    let last = 0;
    for (const [name, { A, B }] of pairs) {
      const [M, N] = await Promise.all(
        [A, B].map((one) => self.loraSafetensors.numbers(one.data, one)),
      );
      let done = 0;
      const tick = (share) => {
        const now = performance.now();
        done += share / 3;
        if (now < last + 100) return;
        last = now;
        self.postMessage({ done: (found.length + done) / pairs.length });
      };
      const s = values(
        gram(N, B.r, B.length, B.rows, tick),
        gram(M, A.r, A.length, A.rows, tick),
        tick,
      );
      found.push([name, s.subarray(0, Math.min(A.r, A.length, B.length))]);
    }
    self.postMessage({ found });
  });
})();
