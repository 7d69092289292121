// Any rate that an AudioContext runs at -> 16 kHz, as the sound comes in: a windowed sinc (Kaiser window), one set of
// weights for each of the few phases that two whole rates have. Sample n of the output is the input at time n / 16000,
// without a delay of the filter: captions and lips share one clock.

const ZEROS = 32; // zero crossings of the sinc on each side
const ROLL_OFF = 0.95; // of the lower of the two Nyquist frequencies: where the pass band ends
const BETA = 9; // Kaiser: about 90 dB below

export class Resampler {
  /** @param {number} from Hz, whole  @param {number} to Hz, whole */
  constructor(from, to = 16000) {
    const common = divisor(from, to);
    this.up = to / common;
    this.down = from / common;
    this.phases = from === to ? null : phases(this.up, this.down);
    this.reach = from === to ? 0 : this.phases[0].length / 2; // samples needed on each side
    this.kept = new Float32Array(this.reach); // silence before the beginning
    this.first = -this.reach; // the input sample that kept[0] is
    this.next = 0; // the output sample to make next
  }

  /** The next samples, however many -> the output samples that they complete. */
  push(samples) {
    if (!this.phases) return samples.slice();
    const whole = new Float32Array(this.kept.length + samples.length);
    whole.set(this.kept);
    whole.set(samples, this.kept.length);
    const end = this.first + whole.length;
    const out = [];
    for (let place; (place = Math.floor((this.next * this.down) / this.up)) + this.reach < end; this.next++) {
      out.push(this.#at(whole, place - this.reach + 1 - this.first));
    }
    const oldest = Math.floor((this.next * this.down) / this.up) - this.reach + 1;
    const drop = Math.max(0, Math.min(oldest - this.first, whole.length));
    this.kept = whole.slice(drop);
    this.first += drop;
    return Float32Array.from(out);
  }

  /** What the last samples still owe, as if silence followed. */
  flush() {
    return this.push(new Float32Array(this.reach + 1));
  }

  #at(samples, from) {
    const weights = this.phases[(this.next * this.down) % this.up];
    let sum = 0;
    for (let i = 0; i < weights.length; i++) sum += weights[i] * samples[from + i];
    return sum;
  }
}

/** For each of `up` phases the weights of the input samples around it. */
function phases(up, down) {
  const cutoff = ROLL_OFF * Math.min(1, up / down); // of the input's Nyquist frequency
  const reach = Math.ceil(ZEROS / cutoff);
  return Array.from({ length: up }, (_, phase) => {
    const weights = Float64Array.from({ length: 2 * reach }, (_, i) => {
      const away = i - reach + 1 - phase / up;
      return Math.abs(away) < reach ? cutoff * sinc(cutoff * away) * kaiser(away / reach) : 0;
    });
    const sum = weights.reduce((whole, weight) => whole + weight, 0);
    return weights.map((weight) => weight / sum); // a constant stays what it is
  });
}

const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
const kaiser = (x) => bessel(BETA * Math.sqrt(1 - x * x)) / bessel(BETA);

/** The modified Bessel function of order 0, by its series. */
function bessel(x) {
  let [sum, term] = [1, 1];
  for (let k = 1; term > sum * 1e-17; k++) sum += term *= (x / 2 / k) ** 2;
  return sum;
}

const divisor = (a, b) => (b ? divisor(b, a % b) : a);
