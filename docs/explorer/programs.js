// What programs on one page share: the scripts of each are loaded once it comes near the view, choices are kept in
// the address, and numbers are coloured by their signs.
(() => {
  "use strict";

  const root = new URL(document.documentElement.dataset.content_root || "./", location);
  const near = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        near.unobserve(target);
        target.ariaBusy = true;
        const names = target.dataset.scripts.split(" "); // in their order, the program itself last
        for (const name of names) {
          if (document.querySelector(`script[src$="/${name}"]`)) continue;
          const script = document.createElement("script");
          script.async = false;
          script.src = new URL(`_static/${name}`, root);
          script.addEventListener("load", () => (target.ariaBusy = name !== names.at(-1)));
          document.head.append(script);
        }
      }
    },
    { rootMargin: "50%" },
  );
  for (const program of document.querySelectorAll("[data-scripts]")) near.observe(program);

  // What is chosen, by name, but for what is usual
  window.remember = (program, choices, usual) => {
    const address = new URL(location);
    for (const [name, value] of Object.entries(choices))
      if (value === usual[name]) address.searchParams.delete(name);
      else address.searchParams.set(name, value);
    if (address.href === location.href) return;
    address.hash = program.closest("section").id;
    history.replaceState(null, "", address);
  };

  // Blue below zero, white at zero, orange above: a function of numbers from -1 to 1.
  window.diverging = () => {
    const [minus, plus] = ["minus", "plus"].map(window.colour);
    return (x) => (x < 0 ? minus : plus).map((end) => 255 + Math.min(1, Math.abs(x)) * (end - 255));
  };
})();
