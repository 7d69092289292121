// One session of listening: pictures and sound in, captions out. No page in here: main.js shows what this says.

import { PictureGrid, SoundTrack } from './clock.js';
import { clock } from './features.js';
import { MouthFollower } from './mouth.js';
import { gray } from './pixels.js';
import { Resampler } from './resample.js';
import { agreed, levelDb, Segmenter, snrDb } from './speech.js';

const PARTIAL_S = 0.5; // between two readings of a caption that still grows
const FRESH_S = 0.5; // sound without news for longer is taken to be gone
const DRAWN = 160; // samples in a column of the spectrogram
const STILL_DB = -15; // of the lips' movement, below which nobody speaks: see movement()

/**
 * Emits, through `tell`: {caption: {words, sure, final}}, {level: {db, noiseDb, snrDb, speaking}}, {face: boolean},
 * {times: {…ms, rtf}}.
 */
export class Session {
  constructor({ spec, findFaces, recognize, tell, drawSound }) {
    Object.assign(this, { spec, recognize, tell, drawSound });
    this.rate = clock(spec.features);
    this.start = performance.now() / 1000;
    this.sound = new SoundTrack(this.start);
    this.grid = new PictureGrid(this.start);
    this.follower = new MouthFollower(findFaces);
    this.segmenters = { sound: this.#segmenter(), lips: this.#segmenter(STILL_DB) };
    this.step = 0;
    this.levels = [];
    this.ms = { capture: 0, face: 0, crop: 0 };
    this.spent = 0; // ms of the caption being spoken: faces and pictures
    this.lastSoundS = -Infinity;
    this.frame = 0;
  }

  /** A picture of the camera, taken at `seconds` on performance.now()'s clock. */
  picture(rgba, width, height, seconds) {
    const before = performance.now();
    if (!this.spec.features.video) return;
    for (const [frame, picture] of this.grid.push(seconds, gray(rgba, width, height))) {
      this.follower.push(frame, picture);
      this.frame = frame + 1;
    }
    const ms = performance.now() - before;
    this.ms = { capture: before - 1000 * seconds, face: this.follower.searchedMs, crop: this.ms.crop };
    this.spent += ms;
    this.tell({ face: this.follower.inSight(this.frame), mouth: this.follower.glimpse(this.frame - 1) });
    if (!this.hears) this.#follow(Math.floor(this.frame / this.rate.video), 'lips');
  }

  /** Sound of the microphone; the last sample was heard at `seconds`. */
  samples(samples, rateHz, seconds) {
    if (!this.spec.features.audio) return;
    this.resampler ??= new Resampler(rateHz);
    this.lastSoundS = seconds;
    const heard = this.resampler.push(samples);
    this.sound.push(heard, seconds);
    this.#draw(heard);
    this.#follow(Math.floor(this.sound.end / this.rate.samples), 'sound');
  }

  #draw(heard) {
    this.undrawn = Float32Array.from([...(this.undrawn ?? []), ...heard]);
    const whole = this.undrawn.length - (this.undrawn.length % DRAWN);
    if (whole) this.drawSound(this.undrawn.subarray(0, whole));
    this.undrawn = this.undrawn.slice(whole);
  }

  get hears() {
    return performance.now() / 1000 - this.lastSoundS < FRESH_S;
  }

  /** Go through the steps up to `stop`: each has a level, and may end a caption. */
  #follow(stop, kind) {
    const segmenter = this.segmenters[kind];
    if (segmenter !== this.segmenter) this.#changeTo(segmenter, stop);
    for (; this.step < stop; this.step++) {
      const level = kind === 'sound' ? levelDb(this.#wave(this.step, this.step + 1)) : this.#movement(this.step);
      this.levels[this.step] = level;
      const span = segmenter.push(level);
      if (span) this.#finish(span);
      this.tell({ level: { db: level, noiseDb: segmenter.noiseDb, speaking: Boolean(segmenter.open), kind } });
    }
    const { open } = segmenter;
    if (open && stop - (this.read ?? open.start) >= PARTIAL_S * this.spec.steps.per_second && !this.busy)
      this.#partial(open.start, stop);
  }

  /** The track that captions are cut by came or went: what was being spoken is finished as it is. */
  #changeTo(segmenter, stop) {
    const open = this.segmenter?.open;
    if (open) this.#finish({ start: open.start, stop: this.step });
    this.segmenter = segmenter;
    Object.assign(segmenter, {
      open: null,
      loud: 0,
      step: (this.step = Math.max(this.step, stop - 1)),
      ended: this.step,
    });
  }

  async #partial(start, stop) {
    this.read = stop;
    this.busy = true;
    const { words } = await this.#recognize({ start, stop }).finally(() => (this.busy = false));
    if (this.segmenter.open?.start !== start) return; // it was finished meanwhile
    const spoken = words.map(({ word }) => word);
    this.tell({ caption: { words: spoken, sure: agreed(this.before ?? [], spoken), final: false } });
    this.before = spoken;
  }

  async #finish(span) {
    const ended = performance.now();
    const {
      spent,
      segmenter: { noiseDb },
    } = this;
    const sound = this.segmenter === this.segmenters.sound;
    this.read = this.before = undefined;
    this.spent = 0;
    const { words, ms } = await this.#recognize(span);
    const seconds = (span.stop - span.start) / this.spec.steps.per_second;
    const own = ms.crop + ms.mel + ms.encode + ms.decode;
    const snr = sound ? snrDb(this.levels.slice(span.start, span.stop), noiseDb) : null;
    const times = { ...ms, waited: performance.now() - ended, seconds, rtf: (spent + own) / 1000 / seconds };
    this.tell({ caption: { words: words.map(({ word }) => word), sure: words.length, final: true, span, snr }, times });
  }

  async #recognize({ start, stop }) {
    const clip = this.#clip(start, Math.min(stop, start + this.spec.steps.max));
    const { words, ms } = await this.recognize(clip);
    return { words, ms: { ...this.ms, ...ms } };
  }

  /** What was heard and seen in the steps [start, stop). */
  #clip(start, stop) {
    const before = performance.now();
    const waveform = this.sound.end > start * this.rate.samples ? this.#wave(start, stop) : null;
    const [first, last] = [start, stop].map((step) => Math.min(step * this.rate.video, this.frame));
    const seen = last > first ? this.follower.mouth(first, last) : { mouth: null, present: [] };
    this.ms.crop = performance.now() - before;
    return { waveform, ...seen };
  }

  #wave = (start, stop) => this.sound.read(start * this.rate.samples, stop * this.rate.samples);

  /** How much the lips move in a step, in dB of the gray levels' own deviation: pauses are still. */
  #movement(step) {
    const { mouth, present } = this.follower.mouth((step - 1) * this.rate.video, (step + 1) * this.rate.video);
    const side = mouth.length / present.length;
    if (!present.every(Boolean)) return -90;
    let difference = 0;
    for (let i = side; i < mouth.length; i++) difference += (mouth[i] - mouth[i - side]) ** 2;
    const mean = mouth.reduce((sum, level) => sum + level, 0) / mouth.length;
    const variance = mouth.reduce((sum, level) => sum + (level - mean) ** 2, 0) / mouth.length;
    return 10 * Math.log10(difference / (mouth.length - side) / (variance + 1) + 1e-9);
  }

  #segmenter(leastDb) {
    return new Segmenter(this.spec.steps.per_second, this.spec.steps.max, leastDb);
  }
}
