// The Haar cascade of edgeav/runtime/face.py, evaluated here: gray picture -> boxes of faces. Viola & Jones 2001,
// https://doi.org/10.1109/CVPR.2001.990517, with the trees, the scan and the grouping that OpenCV's detectMultiScale
// uses, so that a browser finds the face where Python does. opencv.js would do it too, in 10 MB.

import { shrink } from './pixels.js';

const SCALE_FACTOR = 1.1;
const MIN_NEIGHBORS = 5;
const OVERLAP = 0.2; // of the mean side: boxes that differ by less are one face
const SHORT_SIDE = 288; // pixels: larger pictures are shrunk to this before the search
const MIN_SIDE = SHORT_SIDE / 4; // of a face
const THRESHOLD_EPS = 1e-5;
const FLAT = 0.1; // deviation of gray levels below which a window shows nothing
// In box widths: where the mouth is in a box of this cascade. See HaarFaces in face.py.
const [MOUTH_X, MOUTH_Y, EYE_DISTANCE] = [0.5, 0.76, 0.355];

/**
 * @param {object} cascade what install.py makes of OpenCV's XML file
 * @returns {(picture: {data: Uint8Array, width: number, height: number}) => Array<{x, y, eyes}>}
 *   mouth position and eye distance of every face, in pixels of the picture
 */
export function faceFinder(cascade) {
  const scan = scanner(cascade);
  return (picture) => {
    const { small, scale } = shrink(picture, SHORT_SIDE);
    return grouped(scan(small)).map(([x, y, side]) => ({
      x: (x + MOUTH_X * side) / scale,
      y: (y + MOUTH_Y * side) / scale,
      eyes: (EYE_DISTANCE * side) / scale,
    }));
  };
}

/** @returns {(picture) => number[][]} every window [x, y, side] that all stages accept, ungrouped. */
function scanner({ window: side, stages, features }) {
  const trees = stages.map((stage) => ({
    ...stage,
    threshold: Math.fround(Math.fround(stage.threshold) - THRESHOLD_EPS),
  }));
  return (picture) => {
    const found = [];
    for (let factor = 1; ; factor *= SCALE_FACTOR) {
      const scale = Math.fround(factor);
      const size = round(side * factor);
      if (size > Math.min(picture.width, picture.height)) return found;
      if (size >= MIN_SIDE) scanAt(picture, scale, size, side, trees, features, found);
    }
  };
}

function scanAt(picture, scale, size, side, stages, features, found) {
  const small = resized(picture, round(picture.width / scale), round(picture.height / scale));
  const tables = integrals(small);
  const offsets = features.map((rectangles) => rectangles.map((rectangle) => cornersOf(rectangle, small.width + 1)));
  const step = scale >= 2 ? 1 : 2;
  for (let y = 0; y < small.height + 1 - side; y += step) {
    for (let x = 0; x < small.width + 1 - side; x += step) {
      const verdict = judge(tables, y * (small.width + 1) + x, side, stages, offsets);
      if (verdict < 0) found.push([round(x * scale), round(y * scale), size]);
      if (verdict === 0) x += step; // as OpenCV does: beside what the first stage refuses is nothing either
    }
  }
}

/** -> the number of the stage that refused the window at `at`; -1 when all accept it, Infinity for a flat one. */
function judge({ sums, squares, width }, at, side, stages, offsets) {
  const inner = cornersOf([1, 1, side - 2, side - 2, 1], width);
  const area = (side - 2) ** 2;
  const variance = area * sumOf(squares, at, inner) - sumOf(sums, at, inner) ** 2;
  const scale = variance > 0 ? 1 / Math.sqrt(variance) : 1;
  if (variance <= 0 || area * scale >= FLAT) return Infinity;
  for (let stage = 0; stage < stages.length; stage++) {
    let sum = 0;
    for (const tree of stages[stage].trees) sum += leafOf(tree, sums, at, offsets, scale);
    if (sum < stages[stage].threshold) return stage;
  }
  return -1;
}

/** nodes: [left, right, feature, threshold] each; a child above 0 is a node, else minus the number of a leaf. */
function leafOf({ nodes, leaves }, sums, at, offsets, scale) {
  for (let index = 0; ; ) {
    const [left, right, feature, threshold] = nodes[index];
    let value = 0;
    for (const rectangle of offsets[feature]) value += rectangle[4] * sumOf(sums, at, rectangle);
    index = value * scale < threshold ? left : right;
    if (index <= 0) return leaves[-index];
  }
}

const sumOf = (table, at, [a, b, c, d]) => table[at + a] - table[at + b] - table[at + c] + table[at + d];

const cornersOf = ([x, y, w, h, weight], width) => [
  y * width + x,
  y * width + x + w,
  (y + h) * width + x,
  (y + h) * width + x + w,
  weight,
];

/** Sums over everything above and left, of levels and of their squares; one row and column larger. */
function integrals({ data, width, height }) {
  const wide = width + 1;
  const [sums, squares] = [new Int32Array(wide * (height + 1)), new Float64Array(wide * (height + 1))];
  for (let y = 0; y < height; y++) {
    let [sum, square] = [0, 0];
    for (let x = 0; x < width; x++) {
      const level = data[y * width + x];
      const at = (y + 1) * wide + x + 1;
      sums[at] = sums[at - wide] + (sum += level);
      squares[at] = squares[at - wide] + (square += level * level);
    }
  }
  return { sums, squares, width: wide };
}

/** Bilinear, centers of pixels matched, as OpenCV's INTER_LINEAR_EXACT. */
function resized({ data, width, height }, toWidth, toHeight) {
  const out = new Uint8Array(toWidth * toHeight);
  const [xs, ys] = [taps(width, toWidth), taps(height, toHeight)];
  for (let y = 0; y < toHeight; y++) {
    const [upper, lower, v] = ys[y];
    for (let x = 0; x < toWidth; x++) {
      const [left, right, u] = xs[x];
      const above = data[upper * width + left] * (1 - u) + data[upper * width + right] * u;
      const below = data[lower * width + left] * (1 - u) + data[lower * width + right] * u;
      out[y * toWidth + x] = above * (1 - v) + below * v + 0.5;
    }
  }
  return { data: out, width: toWidth, height: toHeight };
}

function taps(from, to) {
  return Array.from({ length: to }, (_, i) => {
    const place = Math.min(Math.max(((i + 0.5) * from) / to - 0.5, 0), from - 1);
    const low = Math.floor(place);
    return [low, Math.min(low + 1, from - 1), place - low];
  });
}

/** Boxes of one face become their mean; faces of few boxes, and faces inside better ones, are dropped. */
export function grouped(boxes) {
  const groups = partition(boxes).filter((group) => group.length > MIN_NEIGHBORS);
  const means = groups.map((group) =>
    [0, 1, 2].map((i) => round(group.reduce((sum, box) => sum + box[i], 0) / group.length)),
  );
  return means.filter(
    (box, i) =>
      !means.some((other, j) => j !== i && groups[j].length > Math.max(3, groups[i].length) && inside(box, other)),
  );
}

/** Sets of boxes connected by likeness. */
function partition(boxes) {
  const left = new Set(boxes.keys());
  const groups = [];
  for (const seed of left) {
    const group = [seed];
    left.delete(seed);
    for (let i = 0; i < group.length; i++) {
      for (const other of left) if (alike(boxes[group[i]], boxes[other])) left.delete(other) && group.push(other);
    }
    groups.push(group.map((index) => boxes[index]));
  }
  return groups;
}

function alike([x, y, side], [x2, y2, side2]) {
  const delta = OVERLAP * Math.min(side, side2);
  const [dx, dy] = [x - x2, y - y2].map(Math.abs);
  return (
    dx <= delta && dy <= delta && Math.abs(x + side - x2 - side2) <= delta && Math.abs(y + side - y2 - side2) <= delta
  );
}

function inside([x, y, side], [x2, y2, side2]) {
  const margin = round(side2 * OVERLAP);
  return x >= x2 - margin && y >= y2 - margin && x + side <= x2 + side2 + margin && y + side <= y2 + side2 + margin;
}

/** To the nearest, halves to even: cvRound. */
function round(x) {
  const low = Math.floor(x);
  return x - low === 0.5 ? low + (low % 2) : Math.round(x);
}
