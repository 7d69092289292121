// The Haar cascade of edgeav/runtime/face.py, evaluated here: gray picture -> boxes of faces. Viola & Jones 2001,
// https://doi.org/10.1109/CVPR.2001.990517, with the trees, the scan and the grouping that OpenCV's detectMultiScale
// uses, so that a browser finds the face where Python does. opencv.js would do it too, in 10 MB.

import { bilinear, shrink } from './pixels.js';

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
function scanner(cascade) {
  const flat = flattened(cascade);
  return (picture) => {
    const found = [];
    for (let factor = 1; ; factor *= SCALE_FACTOR) {
      const size = round(cascade.window * factor);
      if (size > Math.min(picture.width, picture.height)) return found;
      if (size >= MIN_SIDE) scanAt(picture, Math.fround(factor), size, flat, found);
    }
  };
}

/** The cascade as arrays of numbers: a million of them are read for each picture, and objects are slow to read. */
function flattened({ window: side, stages, features }) {
  const trees = stages.flatMap((stage) => stage.trees);
  const starts = (lengths) =>
    Int32Array.from(
      lengths,
      (
        (sum) => (length) =>
          (sum += length) - length
      )(0),
    );
  const rectangle = (feature, i) => feature[i] ?? [0, 0, 0, 0, 0];
  return {
    side,
    known: new Map(),
    thresholds: stages.map((stage) => Math.fround(Math.fround(stage.threshold) - THRESHOLD_EPS)),
    ends: stages.map((stage, i) => stages.slice(0, i + 1).reduce((sum, { trees: own }) => sum + own.length, 0)),
    roots: starts(trees.map((tree) => tree.nodes.length)),
    firstLeaf: starts(trees.map((tree) => tree.leaves.length)),
    leaves: Float32Array.from(trees.flatMap((tree) => tree.leaves)),
    // [left, right, feature] of each node: a child above 0 is a node of the tree, else minus the number of its leaf
    nodes: Int32Array.from(trees.flatMap((tree) => tree.nodes.flatMap((node) => node.slice(0, 3)))),
    limits: Float32Array.from(trees.flatMap((tree) => tree.nodes.map((node) => node[3]))),
    rectangles: features.map((feature) => [0, 1, 2].map((i) => rectangle(feature, i))),
    weights: Float32Array.from(features.flatMap((feature) => [0, 1, 2].map((i) => rectangle(feature, i)[4]))),
  };
}

function scanAt(picture, scale, size, flat, found) {
  const small = bilinear(picture, round(picture.width / scale), round(picture.height / scale));
  const tables = integrals(small);
  const wide = small.width + 1;
  const offsets = offsetsOf(flat, wide);
  const step = scale >= 2 ? 1 : 2;
  for (let y = 0; y < small.height + 1 - flat.side; y += step) {
    for (let x = 0; x < small.width + 1 - flat.side; x += step) {
      const verdict = judge(tables, y * wide + x, flat, offsets);
      if (verdict < 0) found.push([round(x * scale), round(y * scale), size]);
      if (verdict === 0) x += step; // as OpenCV does: beside what the first stage refuses is nothing either
    }
  }
}

/** -> the number of the stage that refused the window at `at`; -1 when all accept it, Infinity for a flat one. */
function judge({ sums, squares, wide }, at, flat, offsets) {
  const inner = at + wide + 1; // a border of one is left out
  const area = (flat.side - 2) ** 2;
  const variance = area * within(squares, inner, flat.side - 2, wide) - within(sums, inner, flat.side - 2, wide) ** 2;
  const scale = variance > 0 ? 1 / Math.sqrt(variance) : 1;
  if (variance <= 0 || area * scale >= FLAT) return Infinity;
  for (let stage = 0, tree = 0; stage < flat.ends.length; stage++) {
    let sum = 0;
    for (; tree < flat.ends[stage]; tree++) sum += leafOf(tree, sums, at, flat, offsets, scale);
    if (sum < flat.thresholds[stage]) return stage;
  }
  return -1;
}

function leafOf(tree, sums, at, { roots, nodes, limits, weights, firstLeaf, leaves }, offsets, scale) {
  for (let index = 0; ; ) {
    const node = roots[tree] + index;
    let value = 0;
    for (let i = 3 * nodes[3 * node + 2], end = i + 3, o = 4 * i; i < end && weights[i]; i++, o += 4) {
      const sum =
        sums[at + offsets[o]] - sums[at + offsets[o + 1]] - sums[at + offsets[o + 2]] + sums[at + offsets[o + 3]];
      value += weights[i] * sum;
    }
    index = nodes[3 * node + (value * scale < limits[node] ? 0 : 1)];
    if (index <= 0) return leaves[firstLeaf[tree] - index];
  }
}

/** Where the corners of every rectangle lie in tables `wide` numbers wide; a camera's pictures need few such. */
function offsetsOf(flat, wide) {
  if (!flat.known.has(wide))
    flat.known.set(wide, Int32Array.from(flat.rectangles.flat().flatMap((one) => cornersOf(one, wide))));
  return flat.known.get(wide);
}

const within = (table, at, side, wide) =>
  table[at] - table[at + side] - table[at + side * wide] + table[at + side * wide + side];

const cornersOf = ([x, y, w, h], wide) => [y * wide + x, y * wide + x + w, (y + h) * wide + x, (y + h) * wide + x + w];

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
  return { sums, squares, wide };
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
