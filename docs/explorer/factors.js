// The picture of W0 + B A, drawn to scale at the rank under the reader's hand.
(() => {
  "use strict";

  const root = document.getElementById("factors");
  const picture = document.querySelector("svg.idea");
  if (!root || !picture) return;

  const D = 100, K = 120, SCALE = 1.8; // of W0, and of the picture
  const slider = root.querySelector("input");
  const [B, A] = picture.querySelectorAll(".trained rect");
  const [nameB, sizeB, nameA, sizeA, sum, share] = picture.querySelectorAll(".trained text");
  const title = picture.querySelector("title");
  const whole = (n) => n.toLocaleString("en-US");
  const show = (name, text) => { root.querySelector(`[data-show="${name}"]`).textContent = text; };
  let announce;

  function draw() {
    const rank = Number(slider.value);
    const count = rank * (D + K);
    const thick = SCALE * rank;
    B.setAttribute("width", thick);
    sizeB.setAttribute("x", 336 + thick / 2);
    A.setAttribute("height", thick);
    A.setAttribute("x", 408 + Math.max(0, thick - 50));
    for (const text of [nameA, sizeA, sum, share]) text.setAttribute("x", Number(A.getAttribute("x")) + 108);
    nameA.setAttribute("y", 72 + thick);
    nameB.setAttribute("x", 322);
    sum.setAttribute("y", Math.max(172, 104 + thick));
    share.setAttribute("y", Math.max(200, 132 + thick));
    sizeB.textContent = `${D} x ${rank}`;
    sizeA.textContent = `${rank} x ${K}`;
    sum.textContent = `${whole(count)} numbers, trained`;
    share.textContent = `${Math.round((100 * count) / (D * K))} % of ${whole(D * K)}`;
    title.textContent = `W = W0 + B A, drawn to scale. W0 has ${D} rows and ${K} columns, ${whole(D * K)} numbers, and is frozen. `
      + `B has ${D} rows and ${rank} columns, A has ${rank} rows and ${K} columns: ${whole(count)} numbers, which are trained.`;
    const verdict = count < D * K
      ? `${whole(count)} numbers instead of ${whole(D * K)}.`
      : `${whole(count)} numbers: more than the ${whole(D * K)} of a full update. Break-even is rank 54.`;
    show("rank", rank);
    show("verdict", verdict);
    slider.setAttribute("aria-valuetext", `rank ${rank}`);
    clearTimeout(announce);
    announce = setTimeout(() => show("status", verdict), 500);
  }

  slider.addEventListener("input", draw);
  root.hidden = false;
  draw();
})();
