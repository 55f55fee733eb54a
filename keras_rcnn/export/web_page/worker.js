// The model, in a thread of its own: RGBA pixels of a photo in, what the model found out.
"use strict";

let ort, session;

const tasks = {
  // runtime: address of ONNX Runtime's module; wasm, model: bytes
  async start({ runtime, wasm, model, threads }) {
    ort = await import(runtime);
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
