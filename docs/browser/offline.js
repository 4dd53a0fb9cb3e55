// Pages that are opened from files: a browser starts no worker from a file and fetches none. What a page
// fetches lies in scripts instead (docs/_ext/offline.py packs them), each loaded once, when it is asked for.
(() => {
  "use strict";

  const root = new URL(document.documentElement.dataset.content_root || "./", location).href;
  const { packed, first, threads } = window.loraOffline;
  const path = (what) => String(what.url ?? what).replace(root, "");
  const coming = new Map();
  const arrived = {}; // what to call once a file is there, by its path

  window.loraOffline.put = (name, text) => {
    arrived[name](Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)));
  };

  function content(name) {
    if (!coming.has(name)) {
      const found = new Promise((resolve, reject) => {
        const script = Object.assign(document.createElement("script"), {
          src: `${root}${name}.js`,
        });
        script.addEventListener("error", () => reject(new Error(`${name} is missing`)));
        arrived[name] = resolve;
        document.head.append(script);
      });
      coming.set(name, found);
    }
    return coming.get(name);
  }

  const fetchPlainly = window.fetch.bind(window);
  window.fetch = async (what, options) => {
    const name = path(what);
    return packed.includes(name) ? new Response(await content(name)) : fetchPlainly(what, options);
  };

  // Runs in a worker, before its own code: asks the page for files, and has those that come first at hand.
  function inside(place) {
    const files = new Map();
    const asked = new Map();
    self.addEventListener("message", (event) => {
      if (!event.data?.offline) return;
      event.stopImmediatePropagation();
      for (const [name, bytes] of event.data.offline) {
        files.set(place + name, bytes);
        asked.get(place + name)?.(bytes);
      }
    });
    self.fetch = async (what) => {
      const url = String(what.url ?? what);
      const bytes =
        files.get(url) ??
        (await new Promise((resolve) => {
          asked.set(url, resolve);
          self.postMessage({ wanted: url });
        }));
      const type = url.endsWith(".wasm") ? "application/wasm" : "application/octet-stream";
      return bytes
        ? new Response(bytes, { headers: { "Content-Type": type } })
        : new Response("", { status: 404 });
    };
    // as far as Emscripten asks, for files that it opens late and must have at once
    self.XMLHttpRequest = class {
      open(method, url) {
        this.method = method;
        this.bytes = files.get(String(url));
        this.status = this.bytes ? 200 : 404;
      }
      setRequestHeader() {}
      overrideMimeType() {}
      getResponseHeader(name) {
        return /^content-length$/i.test(name) ? String(this.bytes.length) : null;
      }
      send() {
        if (this.method === "GET" && this.bytes) this.response = this.bytes.slice().buffer;
      }
    };
  }

  const urlPlainly = URL.createObjectURL.bind(URL);
  const blobs = new Map();
  URL.createObjectURL = (blob) => {
    const url = urlPlainly(blob);
    blobs.set(url, blob);
    return url;
  };

  window.Worker = class extends window.Worker {
    constructor(url) {
      const own = blobs.get(String(url));
      const code = [`(${inside})(${JSON.stringify(root)});\n`, own ?? threads[path(url)]];
      super(urlPlainly(new Blob(code, { type: "text/javascript" })));
      const give = (names) =>
        Promise.all(names.map(async (name) => [name, await content(name).catch(() => null)])).then(
          (offline) => this.postMessage({ offline }),
        );
      this.addEventListener("message", ({ data }) => data.wanted && give([path(data.wanted)]));
      this.ready = own && give(first);
    }
  };
})();
