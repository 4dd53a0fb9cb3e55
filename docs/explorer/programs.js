// What programs of the pages share: parts of a page by name; choices in the address; colours of numbers. Where
// several are on one page, the scripts of each are loaded once it comes near the view.
(() => {
  "use strict";

  const root = new URL(document.documentElement.dataset.content_root || "./", location);
  const address = (path) => new URL(path, root).href;
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
          script.src = address(`_static/${name}`);
          script.addEventListener("load", () => (target.ariaBusy = name !== names.at(-1)));
          document.head.append(script);
        }
      }
    },
    { rootMargin: "50%" },
  );
  for (const program of document.querySelectorAll("[data-scripts]")) near.observe(program);

  // Parts of a program by a selector, fields by their names, and places of texts by theirs
  const parts = (program) => ({
    find: (selector) => program.querySelector(selector),
    part: (name) => program.elements.namedItem(name),
    show(name, text) {
      for (const place of program.querySelectorAll(`[data-show="${name}"]`))
        place.textContent = text;
    },
  });

  const make = (tag, textContent = "", className = "", more = {}) =>
    Object.assign(document.createElement(tag), { textContent, className, ...more });

  function press(text, act, ariaLabel) {
    const button = make("button", text, "", { type: "button", ariaLabel });
    button.addEventListener("click", act);
    return button;
  }

  function set(element, attributes, text) {
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    return element;
  }

  const svg = (tag, attributes, text) =>
    set(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, text);

  // What is chosen, by name, but for what is usual
  function remember(program, choices, usual) {
    const here = new URL(location);
    for (const [name, value] of Object.entries(choices))
      if (value === usual[name]) here.searchParams.delete(name);
      else here.searchParams.set(name, value);
    if (here.href === location.href) return;
    here.hash = program.closest("section").id;
    history.replaceState(null, "", here);
  }

  // An image of which `shade` tells each pixel's red, green and blue, and how opaque it is unless it is opaque
  function pixels(width, height, shade) {
    const image = new ImageData(width, height);
    image.data.fill(255);
    for (let i = 0; i < width * height; i++) image.data.set(shade(i), 4 * i);
    return image;
  }

  function paint(canvas, width, height, shade) {
    [canvas.width, canvas.height] = [width, height];
    canvas.getContext("2d").putImageData(pixels(width, height, shade), 0, 0);
  }

  // Blue below zero, white at zero, orange above: a function of numbers from -1 to 1.
  function diverging() {
    const [minus, plus] = ["minus", "plus"].map(window.colour);
    return (x) => (x < 0 ? minus : plus).map((end) => 255 + Math.min(1, Math.abs(x)) * (end - 255));
  }

  window.loraPrograms = {
    address,
    parts,
    make,
    press,
    set,
    svg,
    remember,
    pixels,
    paint,
    diverging,
    bytes: (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)),
    whole: (n) => n.toLocaleString("en-US"),
    flowing: (text) => text.replace(/(?<!\n)\n(?![\n\d])/g, " "), // lines end at verses and paragraphs only
    still: matchMedia("(prefers-reduced-motion: reduce)").matches, // then nothing is to move
  };
})();
