// What a reader has read and solved, remembered in this browser: written on lessons, shown in the gallery.
(() => {
  "use strict";

  const key = (name) => `lora_np:${name}`; // as exercises.js has it
  const remembered = (name) => {
    try {
      return JSON.parse(localStorage.getItem(key(name))) || {};
    } catch {
      return {};
    }
  };
  const remember = (name, what) => {
    try {
      localStorage.setItem(key(name), JSON.stringify({ ...remembered(name), ...what }));
    } catch {
      /* private windows: then it is forgotten */
    }
  };

  const gallery = document.querySelector(".gallery");
  if (gallery) return follow();

  // On a lesson: it is begun when it is opened, and read when its end has been on the screen.
  const lesson = location.pathname.match(/([^/]+)\.html$/)?.[1];
  const headings = document.querySelectorAll("article h2");
  if (!lesson || !headings.length) return;
  remember(`lesson:${lesson}`, { begun: true });
  new IntersectionObserver((seen, observer) => {
    if (!seen.some(({ isIntersecting }) => isIntersecting)) return;
    remember(`lesson:${lesson}`, { read: true });
    observer.disconnect();
  }).observe(headings[headings.length - 1]);

  function follow() {
    const cards = [...gallery.querySelectorAll("[data-lesson]")];
    const names = (card) => card.dataset.exercises.split(" ").filter(Boolean);
    const head = document.querySelector(".gallery-progress");

    function show() {
      let read = 0,
        solved = 0,
        exercises = 0,
        any = false;
      for (const card of cards) {
        const state = remembered(`lesson:${card.dataset.lesson}`);
        const done = names(card).filter((name) => remembered(name).passed).length;
        const parts = [];
        if (state.begun) parts.push(state.read ? "Read" : "Begun");
        if (done) parts.push(`${done} of ${names(card).length} exercises solved`);
        const line = card.querySelector(".gallery-done");
        line.textContent = parts.join(" · ");
        line.hidden = !parts.length;
        any ||= parts.length > 0;
        read += Boolean(state.read);
        solved += done;
        exercises += names(card).length;
      }
      head.hidden = !any;
      head.querySelector("p").textContent =
        `${read} of ${cards.length} lessons read, ${solved} of ${exercises} exercises solved, remembered in this browser only.`;
    }

    // What was written as answers is kept.
    head.querySelector("button").addEventListener("click", () => {
      for (const card of cards) {
        remember(`lesson:${card.dataset.lesson}`, { begun: false, read: false });
        for (const name of names(card))
          if (remembered(name).passed) remember(name, { passed: false });
      }
      show();
    });
    addEventListener("pageshow", show); // also when one comes back
    show();
  }
})();
