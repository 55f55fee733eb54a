// A mask of M x M probabilities in its box -> pixels of the photo, by the rule of the detector's preprocessor.
// The rules are those of keras_rcnn/data/paste.py and keras_rcnn/data/matterport.py.
"use strict";

// Along one axis of a box from `low` to `high`, in px of a photo with `side` px: the pixels `first` to `end`, and for
// each of them where it lies among the mask's `cells`, from -1 to `cells`: what is outside of these counts as 0.
const RULES = {
  // grown by a cell on each side, whole pixels, resized
  torchvision(low, high, side, cells) {
    const half = Math.fround(Math.fround((high - low) * 0.5) * Math.fround((cells + 2) / cells));
    const centre = Math.fround((high + low) * 0.5);
    const start = Math.trunc(Math.fround(centre - half));
    const extent = Math.max(Math.trunc(Math.fround(centre + half)) - start + 1, 1);
    const scale = (cells + 2) / extent;
    return {
      first: Math.max(start, 0),
      end: Math.min(start + extent, side),
      at: (pixel) => Math.min(Math.max(Math.fround((pixel - start + 0.5) * scale - 0.5), 0), cells + 1) - 1,
    };
  },

  // read at each pixel's centre in the box as it is
  detectron2(low, high, side, cells) {
    const length = Math.max(high - low, 1e-30);
    return {
      first: Math.max(Math.floor(low) - 1, 0),
      end: Math.min(Math.ceil(high) + 1, side),
      at: (pixel) => Math.min(Math.max(((pixel + 0.5 - low) / length) * cells - 0.5, -1), cells),
    };
  },

  // resized to the box, whose corners are whole pixels
  matterport(low, high, side, cells) {
    const start = Math.round(low);
    const extent = Math.max(Math.round(high) - start, 1);
    return {
      first: Math.min(Math.max(start, 0), side),
      end: Math.min(Math.max(start + extent, 0), side),
      at: (pixel) => (pixel - start + 0.5) * (cells / extent) - 0.5,
    };
  },
};

// mask: M * M floats; box: x1, y1, x2, y2 in px of the photo -> {x, y, width, height, inside}: the part of the photo
// that the mask is laid over, and for each of its pixels, row after row, 1 where the object is.
function pasted(mask, cells, box, photo, rule) {
  const columns = axis(RULES[rule](box[0], box[2], photo.width, cells));
  const rows = axis(RULES[rule](box[1], box[3], photo.height, cells));
  const edged = new Float32Array((cells + 2) * (cells + 2)); // with a cell of 0 on each side
  let least = Infinity;
  for (let y = 0; y < cells; y++) {
    for (let x = 0; x < cells; x++) {
      const value = mask[y * cells + x];
      edged[(y + 1) * (cells + 2) + x + 1] = value;
      least = Math.min(least, value);
    }
  }
  // skimage, and Matterport's with it, cuts off what is less than anything in the mask
  const all = rule === "matterport" && least >= 0.5;
  const inside = new Uint8Array(columns.count * rows.count);
  const across = new Float32Array(cells + 3);
  for (let y = 0; y < rows.count; y++) {
    const above = rows.cell[y] * (cells + 2);
    for (let x = 0; x < cells + 2; x++) {
      const value = edged[above + x];
      const below = above + cells + 2 < edged.length ? edged[above + cells + 2 + x] : 0;
      across[x] = value + (below - value) * rows.share[y];
    }
    for (let x = 0; x < columns.count; x++) {
      const cell = columns.cell[x];
      const value = across[cell] + (across[cell + 1] - across[cell]) * columns.share[x];
      inside[y * columns.count + x] = all || value >= 0.5 ? 1 : 0;
    }
  }
  return { x: columns.first, y: rows.first, width: columns.count, height: rows.count, inside };
}

// A rule's answer with `at` of each pixel as the edged mask's cell and the share of the one behind it.
function axis({ first, end, at }) {
  const count = Math.max(end - first, 0);
  const cell = new Int32Array(count);
  const share = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    const place = at(first + i) + 1;
    cell[i] = Math.floor(place);
    share[i] = place - cell[i];
  }
  return { first, count, cell, share };
}

// A pasted mask as COCO's run lengths: column after column, beginning with what is outside.
function runLengths({ x, y, width, height, inside }, photo) {
  const counts = [];
  let value = 0;
  let run = 0;
  const add = (next, length) => {
    if (length === 0) return;
    if (next !== value) {
      counts.push(run);
      [value, run] = [next, 0];
    }
    run += length;
  };
  add(0, x * photo.height);
  for (let column = 0; column < width; column++) {
    add(0, y);
    for (let row = 0; row < height; row++) add(inside[row * width + column], 1);
    add(0, photo.height - y - height);
  }
  add(0, (photo.width - x - width) * photo.height);
  counts.push(run);
  return { size: [photo.height, photo.width], counts };
}
