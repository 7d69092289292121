// When somebody speaks, how loud the room is, and what of a caption can be trusted while it still grows.

const HISTORY_S = 8; // of levels, from which the noise is read
const QUIET_SHARE = 0.15; // of that time is taken to be pauses: the noise is the level below which it lies
const ASSUMED_DB = -57; // of the noise before anything was heard
const START_DB = 9; // above the noise begins speech
const STAY_DB = 6; // above the noise it goes on
const LEAST_DB = -48; // below which nothing is speech, however still the room
const FLOOR_DB = -90; // of a level: digital silence is not minus infinity
const START_STEPS = 2; // a click is shorter
const PAUSE_S = 0.6; // ends a caption
const BEFORE_S = 0.3; // a caption begins this long before its first loud step: fricatives are quiet
const AFTER_S = 0.3; // of the pause belongs to the caption
const CUT_SEARCH_S = 4; // at the end of an endless caption, in which the quietest place is looked for

/** (S,) samples in [-1, 1] -> dB of full scale. */
export const levelDb = (samples) =>
  Math.max(
    FLOOR_DB,
    10 * Math.log10(samples.reduce((sum, sample) => sum + sample * sample, 0) / Math.max(1, samples.length) + 1e-12),
  );

/** One level a step -> captions' spans in steps. With no sound the levels may be those of the lips' movement. */
export class Segmenter {
  /** @param {number} perSecond steps  @param {number} longest steps that a model takes at once */
  constructor(perSecond, longest, leastDb = LEAST_DB) {
    Object.assign(this, { perSecond, longest, leastDb });
    this.levels = Array(Math.round(2 * perSecond)).fill(ASSUMED_DB);
    this.step = 0;
    this.loud = 0;
    this.open = null; // {start, last, levels} of the caption being spoken
    this.ended = 0; // where the last caption ended
  }

  /** -> {start, stop} in steps when a caption ends with this step, else null. */
  push(level) {
    if (level > FLOOR_DB) this.levels.push(level); // digital silence is a loss on the way and says nothing of the room
    if (this.levels.length > HISTORY_S * this.perSecond) this.levels.shift();
    const step = this.step++;
    if (!this.open) return this.#wait(step, level);
    this.open.levels.push(level);
    if (level > Math.max(this.noiseDb + STAY_DB, this.leastDb)) this.open.last = step;
    if (step - this.open.last >= PAUSE_S * this.perSecond)
      return this.#close(this.open.last + 1 + Math.round(AFTER_S * this.perSecond));
    return this.step - this.open.start >= this.longest ? this.#split() : null;
  }

  /** dB: the level of the pauses. */
  get noiseDb() {
    return [...this.levels].sort((a, b) => a - b)[Math.floor(QUIET_SHARE * this.levels.length)];
  }

  #wait(step, level) {
    this.loud = level > Math.max(this.noiseDb + START_DB, this.leastDb) ? this.loud + 1 : 0;
    if (this.loud < START_STEPS) return null;
    const start = Math.max(this.ended, step - START_STEPS + 1 - Math.round(BEFORE_S * this.perSecond));
    this.open = { start, last: step, levels: [] };
    return null;
  }

  #close(stop) {
    const span = { start: this.open.start, stop };
    this.ended = stop;
    this.loud = 0;
    this.open = null;
    return span;
  }

  /** An endless caption is cut where it is quietest; what is behind that begins the next. */
  #split() {
    const { levels } = this.open;
    const searched = levels.slice(-Math.round(CUT_SEARCH_S * this.perSecond));
    const back = searched.length - 1 - searched.lastIndexOf(Math.min(...searched));
    const span = this.#close(this.step - back);
    this.open = { start: span.stop, last: this.step - 1, levels: levels.slice(levels.length - back) };
    return span;
  }
}

/** Mean levels of a caption's steps and of the noise, in dB -> what the voice has over the noise; null below -10. */
export function snrDb(levels, noiseDb) {
  const power = (level) => 10 ** (level / 10);
  const loudest = [...levels].sort((a, b) => b - a).slice(0, Math.ceil(levels.length / 2)); // half of speech is pauses
  const speech = loudest.reduce((sum, level) => sum + power(level), 0) / Math.max(1, loudest.length) - power(noiseDb);
  return speech > 0.1 * power(noiseDb) ? 10 * Math.log10(speech / power(noiseDb)) : null;
}

/** Words on which two readings agree from the beginning stay (local agreement, Liu et al. 2020,
 * https://arxiv.org/abs/2005.11185); the others may still change. */
export function agreed(before, now) {
  const differ = now.findIndex((word, i) => word !== before[i]);
  return differ < 0 ? now.length : differ;
}
