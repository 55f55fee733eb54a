// The model, in a thread of its own: RGBA pixels of a photo in, what the model found out.
"use strict";

let ort, session;

const tasks = {
  // bytes of ONNX Runtime's module and WebAssembly, and of the model
  async start({ module, wasm, model, threads }) {
    // an address that this thread makes: of a page from the disk it could not read one of the page's
    ort = await import(URL.createObjectURL(new Blob([module], { type: "text/javascript" })));
    ort.env.logLevel = "error";
    ort.env.wasm.wasmBinary = wasm;
    ort.env.wasm.numThreads = threads;
    session = await ort.InferenceSession.create(new Uint8Array(model), { executionProviders: ["wasm"] });
    return {};
  },

  async detect({ pixels, width, height }) {
    const begun = performance.now();
    const rgb = new Uint8Array(3 * width * height);
    for (let from = 0, to = 0; to < rgb.length; from += 4, to += 3) {
      rgb[to] = pixels[from];
      rgb[to + 1] = pixels[from + 1];
      rgb[to + 2] = pixels[from + 2];
    }
    // whatever the size: the model resizes, normalises and pads by itself
    const image = new ort.Tensor("uint8", rgb, [1, height, width, 3]);
    const outputs = await session.run({ image });
    const found = {};
    for (const [name, tensor] of Object.entries(outputs)) {
      found[name] = { data: tensor.data, sizes: tensor.dims.slice(1) };
    }
    return { found, milliseconds: performance.now() - begun };
  },
};

self.onmessage = async ({ data }) => {
  try {
    self.postMessage({ id: data.id, value: await tasks[data.task](data) });
  } catch (error) {
    self.postMessage({ id: data.id, error: String(error.message ?? error) });
  }
};
