// One clock for lips and sound. Pictures come when they please and are placed on a grid of 25 a second by their
// timestamps, as edgeav/runtime/media.py does for files; sound counts its own samples from where its first one lay.

import { FPS, RATE_HZ } from './features.js';

const STILL_S = 1; // a picture that is followed by none for longer was not a still one: its frames stay without a face
const GAP_S = 0.1; // sound this much later than its samples say was interrupted: silence stands in for the loss
const PACKETS = 50; // that must all be so late: a page that was busy gets some late, but lost none

/** Pictures with timestamps in order -> at every 1/25 s the picture nearest to it. */
export class PictureGrid {
  /** @param {number} start seconds: the time of frame 0 */
  constructor(start) {
    this.start = start;
    this.before = null;
    this.tick = 0;
  }

  /** -> the frames this picture completes, each [number, picture]; the same picture may stand for several. */
  push(time, picture) {
    const frames = [];
    const now = time - this.start;
    if (this.before && now <= this.before.time) return frames; // a clock that stands still or runs back
    if (this.before && now - this.before.time < STILL_S) {
      const middle = (this.before.time + now) / 2;
      for (; this.tick / FPS < middle - 1e-6; this.tick++) frames.push([this.tick, this.before.picture]);
    } else {
      this.tick = Math.max(this.tick, Math.ceil(now * FPS - 0.5));
    }
    this.before = { time: now, picture };
    return frames;
  }
}

/**
 * Sound of the last `seconds` at 16 kHz, counted from the session's start. A packet is late by what the system makes it
 * wait, never early: the earliest of them tells when the samples were really heard.
 */
export class SoundTrack {
  constructor(start, seconds = 20) {
    this.start = start;
    this.samples = new Float32Array(seconds * RATE_HZ);
    this.count = 0;
    this.places = []; // where the last packets would put it
    this.origin = Infinity; // where the track's first sample lies in the session
  }

  /** The session's sample after the last one. */
  get end() {
    return this.count ? this.origin + this.count : 0;
  }

  /** Samples at 16 kHz of which the last was heard at `time` seconds, or a little before. */
  push(samples, time) {
    const place = Math.round((time - this.start) * RATE_HZ) - this.count - samples.length;
    this.origin = Math.min(this.origin, place);
    this.places = [...this.places.slice(1 - PACKETS), place];
    this.#write(samples);
    const lost = Math.min(...this.places) - this.origin;
    if (this.places.length < PACKETS || lost < GAP_S * RATE_HZ) return;
    this.#write(new Float32Array(lost));
    this.places = [];
  }

  /** The session's samples [from, to), zeros where they are gone or not there yet. */
  read(from, to) {
    const out = new Float32Array(Math.max(0, to - from));
    const first = Math.max(from, this.end - this.samples.length, this.count ? this.origin : Infinity);
    for (let i = first; i < Math.min(to, this.end); i++)
      out[i - from] = this.samples[(i - this.origin) % this.samples.length];
    return out;
  }

  #write(samples) {
    for (const sample of samples) this.samples[this.count++ % this.samples.length] = sample;
  }
}
