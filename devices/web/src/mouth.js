// Pictures at 25 fps -> the 96x96 mouth crops a model was trained on: find the face in every third picture, link, choose
// the speaker, interpolate, smooth, cut. The rules and numbers of edgeav/runtime/mouth.py. Python reads a clip twice
// for that; here every picture's middle part is kept for a while, so that a caption is made from the same path that
// Python would have found in its span, and not from a guess made while the face was moving.

import { FPS, MOUTH } from './features.js';
import { area, part, squareAround } from './pixels.js';

const SIDE = 1.75; // eye distances: width of the crop
export const STRIDE = 3; // frames between two searches
const GAP = Math.floor(FPS / 2); // frames: a face lost for up to 0.48 s is taken to have moved straight on
const SIGHTINGS = 3; // a face seen less often is a false alarm
const JUMP = 1; // eye distances: farther between two sightings is another face
const CENTER_SMOOTHING = 9; // frames
const SIZE_SMOOTHING = 51; // frames
const KEPT_SIDE = 4; // eye distances: the part of a picture that is kept, room for the head to move in

/** Faces and pictures of the last `seconds`, by the number of the frame. */
export class MouthFollower {
  constructor(findFaces, seconds = 20) {
    this.findFaces = findFaces;
    this.frames = Math.round(seconds * FPS);
    this.sightings = new Map();
    this.parts = new Map();
    this.searched = -Infinity;
    this.searchedMs = 0; // what the last search took
  }

  /** Show a picture; frames come in order, gaps are allowed, and a picture may stand for several frames. */
  push(frame, picture) {
    if (frame - this.searched >= STRIDE) this.#search(frame, picture);
    if (this.inSight(frame)) this.parts.set(frame, this.#part(frame, picture));
    for (const map of [this.parts, this.sightings]) forget(map, frame - this.frames);
    this.picture = picture;
  }

  inSight = (frame) => Boolean(this.near) && frame - this.near.frame <= GAP;

  /** The mouth of one frame as it was last seen, for the eye: (96, 96) or null. */
  glimpse(frame) {
    const kept = this.inSight(frame) && this.parts.get(frame);
    return kept ? cut(kept, this.near.face) : null;
  }

  /** The mouth in the frames [start, stop): (T, 96, 96) pixels, black where `present` (T,) is false. */
  mouth(start, stop) {
    const sightings = new Map(
      [...this.sightings]
        .filter(([frame]) => frame >= start && frame < stop)
        .map(([frame, faces]) => [frame - start, faces]),
    );
    const path = followPath(sightings, stop - start);
    const mouth = new Uint8Array((stop - start) * MOUTH * MOUTH);
    const present = path.map((place, i) => {
      const kept = place && this.parts.get(start + i);
      if (kept) mouth.set(cut(kept, place), i * MOUTH * MOUTH);
      return Boolean(kept);
    });
    return { mouth, present };
  }

  /** A slow machine shows one picture in many frames: it is kept once. */
  #part(frame, picture) {
    return (picture === this.picture && this.parts.get(frame - 1)) || around(picture, this.near);
  }

  #search(frame, picture) {
    if (picture !== this.seen) {
      const before = performance.now();
      this.faces = this.findFaces(picture);
      this.searchedMs = performance.now() - before;
    }
    const { faces } = this;
    Object.assign(this, { seen: picture, searched: frame });
    this.sightings.set(frame, faces);
    const same = this.near && faces.filter((face) => alike(this.near.face, face));
    const face = largest(same?.length && frame - this.near.frame <= GAP ? same : faces);
    if (face) this.near = { frame, face };
  }
}

/** Faces by frame -> for each of `frames` frames {x, y, eyes} or null, as follow_mouth in mouth.py. */
export function followPath(sightings, frames) {
  const enough = Math.min(SIGHTINGS, sightings.size);
  const trails = linked(sightings).filter((trail) => trail.frames.length >= enough);
  const path = Array(frames).fill(null);
  for (const trail of chosen(trails)) lay(trail, path);
  return path;
}

/** {data, …, left, top} and {x, y, eyes} in the whole picture -> (96, 96) pixels. */
export function cut(kept, { x, y, eyes }) {
  const square = squareAround(kept, x - (kept.left ?? 0), y - (kept.top ?? 0), Math.max(1, Math.round(SIDE * eyes)));
  return area(square, MOUTH, MOUTH).data;
}

function around(picture, { face: { x, y, eyes } }) {
  const side = Math.ceil(KEPT_SIDE * eyes);
  return part(picture, Math.round(x - side / 2), Math.round(y - side / 2), side, side);
}

/** Faces near each other in time, place and size become one trail; the longest trail picks first. */
function linked(sightings) {
  const trails = [];
  for (const [frame, faces] of sightings) {
    const left = new Set(faces);
    for (const trail of [...trails].sort((a, b) => b.frames.length - a.frames.length)) {
      const last = trail.faces.at(-1);
      const near = [...left].filter((face) => alike(last, face)).sort((a, b) => distance(last, a) - distance(last, b));
      if (!near.length || frame - trail.frames.at(-1) > GAP) continue;
      trail.frames.push(frame);
      trail.faces.push(near[0]);
      left.delete(near[0]);
    }
    trails.push(...[...left].map((face) => ({ frames: [frame], faces: [face] })));
  }
  return trails;
}

const distance = (one, other) => Math.hypot(one.x - other.x, one.y - other.y);
const alike = (before, now) =>
  distance(before, now) < JUMP * before.eyes && now.eyes / before.eyes > 0.6 && now.eyes / before.eyes < 1.6;
const largest = (faces) => [...faces].sort((a, b) => b.eyes - a.eyes)[0];
const weight = (trail) => trail.faces.reduce((sum, face) => sum + face.eyes, 0); // size times time

/** The weightiest trail, and others where it is not: after a cut the speaker has a new one. */
function chosen(trails) {
  const kept = [];
  for (const trail of [...trails].sort((a, b) => weight(b) - weight(a))) {
    if (!kept.some((other) => trail.frames[0] <= other.frames.at(-1) && other.frames[0] <= trail.frames.at(-1)))
      kept.push(trail);
  }
  return kept;
}

/** Changes `path`: writes the trail, interpolated and smoothed, over the free frames it covers. */
function lay(trail, path) {
  const last = path.length - 1;
  const start = trail.frames[0] <= GAP ? 0 : trail.frames[0] - STRIDE + 1;
  const stop = last - trail.frames.at(-1) <= GAP ? last : trail.frames.at(-1) + STRIDE - 1;
  const covered = Array.from({ length: stop - start + 1 }, (_, i) => start + i);
  const line = (key, width) =>
    smooth(
      covered.map((frame) => interpolated(trail, frame, key)),
      width,
    );
  const [x, y, eyes] = [line('x', CENTER_SMOOTHING), line('y', CENTER_SMOOTHING), line('eyes', SIZE_SMOOTHING)];
  covered.forEach((frame, i) => (path[frame] ??= { x: x[i], y: y[i], eyes: eyes[i] }));
}

function interpolated({ frames, faces }, frame, key) {
  const next = frames.findIndex((other) => other >= frame);
  if (next < 0) return faces.at(-1)[key];
  if (next === 0) return faces[0][key];
  const share = (frame - frames[next - 1]) / (frames[next] - frames[next - 1]);
  return faces[next - 1][key] * (1 - share) + faces[next][key] * share;
}

/** (T,) -> (T,): a median against outliers, a Hann window against steps, both `width` frames (odd). */
export function smooth(values, width) {
  const half = (width - 1) / 2;
  const at = (list, i) => list[Math.min(Math.max(i, 0), list.length - 1)];
  const hann = Array.from({ length: width }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * (i + 1)) / (width + 1)));
  const sum = hann.reduce((whole, share) => whole + share, 0);
  const around = (i) => Array.from({ length: width }, (_, k) => i - half + k);
  const medians = values.map(
    (_, i) =>
      around(i)
        .map((k) => at(values, k))
        .sort((a, b) => a - b)[half],
  );
  return medians.map((_, i) => around(i).reduce((whole, k, j) => whole + at(medians, k) * hann[j], 0) / sum);
}

function forget(map, before) {
  for (const frame of map.keys()) {
    if (frame >= before) return;
    map.delete(frame);
  }
}
