// The page: files, photos and the camera in; boxes, masks and their JSON out. ?photo=FILE detects at once in a photo of
// this folder, &score=0.3 sets the slider.
"use strict";

const element = (id) => document.getElementById(id);
const options = new URLSearchParams(location.search);
const fromDisk = location.protocol === "file:";
const SURE = 0.05; // the least score of a keypoint that is drawn
const DENSE = 15; // objects in a picture; above it, small ones and those of a single class have no labels
const SHADE = 0.4; // of a mask's colour over the photo

let detector; // detector.json
let ask; // a task for the worker -> a promise of its answer
let shown; // the last photo: {name, width, height, pixels, found, milliseconds}
let chosen; // the slider's score; undefined: the classes' own
let turn = 0; // counts what was asked for: an answer that comes late is not shown
let stream; // the camera's

// === Files of this folder ===

const kept = {}; // what FILE.js leaves here, in base64

// A file of this folder as bytes. A page from the disk may not read files: there each has a script that holds it.
async function bytesOf(file) {
  if (!fromDisk) {
    const answer = await fetch(file);
    if (!answer.ok) throw new Error(`${file}: the server says ${answer.status}`);
    return answer.arrayBuffer();
  }
  await new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = `${file}.js`;
    script.onload = resolve;
    script.onerror = () => reject(new Error(
      "A browser does not let a page that lies on the disk read the model beside it. In this folder, run\n" +
      "python -m http.server\nand open http://localhost:8000. Or export again with --from-disk: that folder needs no server.",
    ));
    document.head.append(script);
  });
  const text = atob(kept[file]);
  delete kept[file];
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes.buffer;
}

// === The worker ===

async function startWorker() {
  const script = new Blob([await bytesOf("worker.js")], { type: "text/javascript" });
  const worker = new Worker(URL.createObjectURL(script));
  const waiting = new Map();
  worker.onmessage = ({ data }) => {
    const { resolve, reject } = waiting.get(data.id);
    waiting.delete(data.id);
    if (data.error) reject(new Error(data.error));
    else resolve(data.value);
  };
  worker.onerror = (event) => {
    for (const { reject } of waiting.values()) reject(new Error(event.message ?? "the worker could not be started"));
    waiting.clear();
  };
  let id = 0;
  return (task, input, transfer = []) => new Promise((resolve, reject) => {
    waiting.set(++id, { resolve, reject });
    worker.postMessage({ id, task, ...input }, transfer);
  });
}

async function load() {
  state("loading", "Loading …");
  detector = JSON.parse(new TextDecoder().decode(await bytesOf("detector.json")));
  document.title = element("name").textContent = detector.name;
  const names = detector.class_names;
  element("classes").textContent = `Finds ${names.slice(0, 100).join(", ")}${names.length > 100 ? " …" : ""}`;
  slide();
  const { files } = detector;
  state("loading", `Loading ${(detector.bytes / 1e6).toFixed(0)} MB …`);
  ask = await startWorker();
  const [module, wasm, model] = await Promise.all([files.module, files.wasm, files.model].map(bytesOf));
  // more than one thread needs memory that they share, which a server's headers allow
  const threads = crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, 8) : 1;
  await ask("start", { module, wasm, model, threads }, [module, wasm, model]);
  element("camera").disabled = !navigator.mediaDevices?.getUserMedia;
  state("ready", "Ready.");
}

// === Photos ===

// Pixels as they are in the file, turned as its EXIF orientation says; of a frame of the camera, as they come.
async function pixelsOf(source) {
  const bitmap = await createImageBitmap(source, {
    imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none",
  });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

async function detect(source, name) {
  const mine = ++turn;
  await loaded;
  if (!stream) state("detecting", `Looking at ${name} …`);
  const { width, height, data: pixels } = await pixelsOf(source).catch((error) => {
    throw new Error(`${name} cannot be read as a photo: ${error.message}`);
  });
  const { found, milliseconds } = await ask("detect", { pixels, width, height });
  if (mine !== turn) return;
  shown = { name, width, height, pixels, found: withoutPadding(found), milliseconds };
  draw();
}

async function detectAt(address) {
  if (fromDisk) throw new Error("?photo= needs a server, such as python -m http.server");
  const file = new URL(address, location.href);
  const answer = await fetch(file);
  if (!answer.ok) throw new Error(`${address}: the server says ${answer.status}`);
  await detect(await answer.blob(), decodeURIComponent(file.pathname.split("/").pop()));
}

async function detectIn(file) {
  if (!file) return;
  stopCamera();
  await detect(file, file.name);
}

// Tensors [D, ...] -> for each detection a row, the best first; a label of -1 is padding.
function withoutPadding(tensors) {
  const rows = {};
  const count = tensors.labels.data.filter((label) => label >= 0).length;
  for (const [name, { data, sizes }] of Object.entries(tensors)) {
    const length = sizes.slice(1).reduce((product, side) => product * side, 1);
    const row = (i) => (sizes.length === 1 ? Number(data[i]) : data.subarray(i * length, (i + 1) * length));
    rows[name] = Array.from({ length: count }, (_, i) => row(i));
  }
  return rows;
}

// === The camera ===

async function startCamera() {
  element("camera").disabled = true;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } finally {
    element("camera").disabled = false;
  }
  element("camera").classList.add("on");
  const video = document.createElement("video");
  Object.assign(video, { srcObject: stream, muted: true, playsInline: true });
  await video.play();
  while (stream === video.srcObject) await detect(video, "camera");
}

function stopCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = undefined;
  element("camera").classList.remove("on");
}

// === What is shown ===

function state(word, text) {
  document.documentElement.dataset.state = word;
  element("status").className = word === "error" ? "error" : "";
  element("status").textContent = text;
}

function least(label) {
  return chosen ?? detector.scores[label];
}

function slide() {
  const own = new Set(detector.scores);
  element("score").value = chosen ?? detector.scores[0];
  const several = chosen === undefined && own.size > 1;
  element("least").textContent = several ? "the classes' own scores" : Number(element("score").value).toFixed(2);
}

// The detections that are shown, in detect's form.
function detections() {
  const { found, name, width, height, milliseconds } = shown;
  const places = found.scores.map((_, i) => i).filter((i) => found.scores[i] >= least(found.labels[i]));
  const pick = (key) => places.map((i) => found[key][i]);
  const answer = { image: name, height, width, milliseconds, boxes: pick("boxes"), scores: pick("scores") };
  answer.labels = pick("labels");
  answer.names = answer.labels.map((label) => detector.class_names[label]);
  if (found.keypoints) {
    const points = (values) => Array.from({ length: values.length / 3 }, (_, k) => [...values.subarray(3 * k, 3 * k + 3)]);
    answer.keypoints = pick("keypoints").map(points);
  }
  if (found.masks) {
    answer.masks = places.map((i) => {
      const mask = found.masks[i];
      return pasted(mask, Math.sqrt(mask.length), found.boxes[i], shown, detector.paste);
    });
  }
  return answer;
}

function draw() {
  if (!shown) return;
  const answer = detections();
  const { width, height } = shown;
  const canvas = element("picture");
  Object.assign(canvas, { width, height, hidden: false });
  element("hint").hidden = true;
  element("drop").classList.add("full");
  const context = canvas.getContext("2d");
  const colours = answer.labels.map((label, i) => colourOf(label, i, answer));
  const image = new ImageData(shown.pixels.slice(), width, height);
  for (let i = answer.boxes.length - 1; answer.masks && i >= 0; i--) shade(image, answer.masks[i], colours[i]);
  context.putImageData(image, 0, 0);
  const line = Math.max(1, Math.round(Math.max(width, height) / 500));
  for (let i = answer.boxes.length - 1; i >= 0; i--) drawObject(context, answer, i, colours[i], line);
  shown.answer = answer;
  const counts = new Map();
  for (const name of answer.names) counts.set(name, (counts.get(name) ?? 0) + 1);
  const words = [...counts].sort((a, b) => b[1] - a[1]).map(([name, count]) => `${name} ${count}`);
  const objects = `${answer.boxes.length} object${answer.boxes.length === 1 ? "" : "s"}`;
  const milliseconds = Math.round(answer.milliseconds);
  element("save").disabled = false;
  if (!stream) element("found").textContent = json(answer);
  state("done", `${answer.image}: ${objects}${words.length ? ` (${words.join(", ")})` : ""} in ${milliseconds} ms`);
}

// Of a class; where there is a single one and masks, of an object, so that neighbours can be told apart.
function colourOf(label, i, answer) {
  const { colours, class_names: names } = detector;
  return colours[answer.masks && names.length === 1 ? i % colours.length : label];
}

function shade(image, { x, y, width, height, inside }, colour) {
  for (let row = 0, i = 0; row < height; row++) {
    for (let column = 0; column < width; column++, i++) {
      if (!inside[i]) continue;
      const edge = !row || !column || row === height - 1 || column === width - 1 ||
        !(inside[i - 1] && inside[i + 1] && inside[i - width] && inside[i + width]);
      const part = edge ? 1 : SHADE;
      const at = 4 * ((y + row) * image.width + x + column);
      for (let channel = 0; channel < 3; channel++) {
        image.data[at + channel] += (colour[channel] - image.data[at + channel]) * part;
      }
    }
  }
}

function drawObject(context, answer, i, colour, line) {
  const [x1, y1, x2, y2] = answer.boxes[i];
  const single = detector.class_names.length === 1;
  const dense = answer.boxes.length > DENSE;
  context.strokeStyle = context.fillStyle = `rgb(${colour.join(" ")})`;
  context.lineWidth = answer.masks ? 1 : line;
  if (!answer.masks || !dense) context.strokeRect(x1, y1, x2 - x1, y2 - y1);
  if (answer.keypoints) drawKeypoints(context, answer.keypoints[i], line);
  if (dense && single) return;
  const text = `${answer.names[i]} ${answer.scores[i].toFixed(2)}`;
  const size = Math.max(11, 6 * line);
  context.font = `${size}px system-ui, sans-serif`;
  const wide = context.measureText(text).width + 6;
  if (dense && (x2 - x1) * (y2 - y1) < 1.5 * wide * (size + 4)) return;
  const left = Math.max(0, Math.min(x1, context.canvas.width - wide));
  const top = y1 >= size + 4 ? y1 - size - 4 : y1;
  context.fillRect(left, top, wide, size + 4);
  const bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 130;
  context.fillStyle = bright ? "#000" : "#fff";
  context.textBaseline = "middle";
  context.fillText(text, left + 3, top + size / 2 + 2);
}

function drawKeypoints(context, points, line) {
  for (const [start, end] of detector.bones) {
    if (Math.min(points[start][2], points[end][2]) < SURE) continue;
    context.beginPath();
    context.moveTo(points[start][0], points[start][1]);
    context.lineTo(points[end][0], points[end][1]);
    context.stroke();
  }
  for (const [x, y, score] of points) {
    if (score < SURE) continue;
    context.beginPath();
    context.arc(x, y, line + 1, 0, 2 * Math.PI);
    context.fill();
  }
}

// The name and score of the smallest object under the pointer.
function pointed(event) {
  if (!shown?.answer) return;
  const canvas = element("picture");
  const x = (event.offsetX * canvas.width) / canvas.clientWidth;
  const y = (event.offsetY * canvas.height) / canvas.clientHeight;
  const { boxes, names, scores } = shown.answer;
  const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
  const under = boxes.map((_, i) => i).filter((i) => {
    const [x1, y1, x2, y2] = boxes[i];
    return x >= x1 && x <= x2 && y >= y1 && y <= y2;
  });
  under.sort((a, b) => area(boxes[a]) - area(boxes[b]));
  canvas.title = under.length ? `${names[under[0]]} ${scores[under[0]].toFixed(3)}` : "";
}

function json(answer) {
  const plain = { ...answer, boxes: answer.boxes.map((box) => [...box]) };
  if (answer.masks) plain.masks = answer.masks.map((mask) => runLengths(mask, shown));
  return JSON.stringify(plain);
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([`[${json(shown.answer)}]\n`], { type: "application/json" }));
  link.download = `${shown.name.replace(/\.\w+$/, "")}.json`;
  link.click();
  URL.revokeObjectURL(link.href);
}

// === What is clicked and dropped ===

function failed(error) {
  stopCamera();
  state("error", error.message ?? String(error));
}

if (options.has("score")) chosen = Math.min(Math.max(Number(options.get("score")) || 0, 0), 1);
element("file").addEventListener("change", (event) => {
  const file = event.target.files[0];
  event.target.value = ""; // the same file may be chosen again
  detectIn(file).catch(failed);
});
element("camera").addEventListener("click", () => {
  if (stream) stopCamera();
  else startCamera().catch(failed);
});
element("score").addEventListener("input", (event) => {
  chosen = Number(event.target.value);
  slide();
  requestAnimationFrame(draw);
});
element("save").addEventListener("click", save);
element("picture").addEventListener("mousemove", pointed);
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    element("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") detectIn(event.dataTransfer.files[0]).catch(failed);
  });
}
const loaded = load();
loaded.then(() => options.has("photo") && detectAt(options.get("photo"))).catch(failed);
