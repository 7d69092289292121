// What the page shows; every function takes plain values and changes elements, nothing else.

import { logMel } from './mel.js';

const LOUDEST_DB = 0;
const QUIETEST_DB = -80;
const KEPT_CAPTIONS = 40;
const ROWS = ['capture', 'face', 'crop', 'mel', 'encode', 'decode'];
const MEANINGS = {
  capture: 'camera to page',
  face: 'one search',
  crop: 'mouths of the caption',
  mel: 'log-mel and pixels',
  encode: 'the model',
  decode: 'CTC',
};
const HEARING = {
  mels: 80,
  window: 400,
  hop: 160,
  n_fft: 512,
  window_function: 'hann-symmetric',
  mel_scale: 'slaney',
  mel_norm: 'area',
  mel_corners: 'exact',
  low_hz: 0,
  high_hz: 8000,
  pre_emphasis: 0.97,
  padding: 'zeros',
  log_floor: 2 ** -24,
  log_guard: 'add',
};

export const element = (id) => document.getElementById(id);

/** What goes on, in a line; `warn` for what is wrong. */
export function say(text, warn = false) {
  element('state').textContent = text;
  element('state').classList.toggle('warn', warn);
}

/** A sign is on, off, or missing. */
export function sign(name, value) {
  element(`sign-${name}`).className = { true: 'on', missing: 'missing' }[value] ?? '';
}

/** The level now over the noise, both in dB of full scale; lips have a level of their own and no noise in dB. */
export function showLevel({ db, noiseDb, speaking, kind }) {
  const share = (level) => `${100 * Math.min(1, Math.max(0, (level - QUIETEST_DB) / (LOUDEST_DB - QUIETEST_DB)))}%`;
  element('level').style.width = kind === 'sound' ? share(db) : 0;
  element('noise').style.left = kind === 'sound' ? share(noiseDb) : 0;
  element('snr').textContent = kind === 'sound' ? `noise ${noiseDb.toFixed(0)} dBFS` : 'no sound';
  sign('speech', speaking);
}

/** The caption that grows, or a new one below the last. Words after the first `sure` may still change. */
export function showCaption({ words, sure, final, snr, span }, perSecond) {
  const list = element('captions');
  const item = list.querySelector('.partial') ?? document.createElement('li');
  if (final && !words.length) return item.remove();
  item.className = final ? 'final' : 'partial';
  const open = document.createElement('span');
  open.textContent = words.slice(sure).join(' ');
  item.replaceChildren(words.slice(0, sure).join(' ') + (sure && sure < words.length ? ' ' : ''), open);
  if (final)
    item.append(
      small(
        `${((span.stop - span.start) / perSecond).toFixed(1)} s${snr == null ? '' : ` · SNR ${snr.toFixed(0)} dB`}`,
      ),
    );
  list.append(item);
  while (list.children.length > KEPT_CAPTIONS) list.firstChild.remove();
  list.parentElement.scrollTop = list.parentElement.scrollHeight;
}

/** Milliseconds of each part, as rows with bars. */
export function showTimes(times) {
  const longest = Math.max(...ROWS.map((row) => times[row] ?? 0), 1);
  element('times').replaceChildren(...ROWS.map((name) => row(name, times[name], longest)));
}

/** Pairs of a name and a value. */
export function showFacts(facts) {
  element('facts').replaceChildren(
    ...Object.entries(facts).flatMap(([name, value]) => [cell('dt', name), cell('dd', value)]),
  );
}

/** What the model sees: the last mouth, (96, 96) gray levels. */
export function showMouth(pixels) {
  const canvas = element('mouth');
  canvas.style.visibility = pixels ? 'visible' : 'hidden';
  if (!pixels) return;
  const image = new ImageData(96, 96);
  pixels.forEach((level, i) => image.data.set([level, level, level, 255], 4 * i));
  canvas.getContext('2d').putImageData(image, 0, 0);
}

/** A canvas that scrolls to the left: five seconds, low tones below. -> a function that takes (S,) samples at 16 kHz. */
export function spectrogram(canvas) {
  const context = canvas.getContext('2d');
  const melOf = logMel(HEARING);
  const context_ = HEARING.n_fft;
  context.globalCompositeOperation = 'copy'; // not over what was there: shades would add up
  let before = new Float32Array(context_);
  return (samples) => {
    const whole = Float32Array.from([...before, ...samples]);
    before = whole.slice(-context_);
    const mel = melOf(whole);
    const columns = Math.floor(samples.length / HEARING.hop);
    const skipped = mel.length / HEARING.mels - columns - 2; // the last frames reach beyond the sound there is
    context.drawImage(canvas, -columns, 0);
    const image = context.createImageData(columns, HEARING.mels);
    for (let x = 0; x < columns; x++) {
      for (let band = 0; band < HEARING.mels; band++) {
        image.data.set(color(mel[(skipped + x) * HEARING.mels + band]), 4 * ((HEARING.mels - 1 - band) * columns + x));
      }
    }
    context.putImageData(image, canvas.width - columns, 0);
  };
}

/** A log-mel energy -> a shade of one color: louder is darker on paper, lighter at night. */
function color(energy) {
  const share = Math.min(1, Math.max(0, (energy + 15) / 15));
  return [11, 114, 133, 255 * share ** 1.5];
}

function row(name, ms, longest) {
  const line = document.createElement('tr');
  const bar = document.createElement('td');
  const fill = document.createElement('i');
  fill.style.width = `${(100 * (ms ?? 0)) / longest}%`;
  bar.append(fill);
  const title = cell('td', name);
  title.title = MEANINGS[name];
  const number = cell('td', ms == null ? '–' : ms < 10 ? ms.toFixed(1) : ms.toFixed(0));
  number.className = 'number';
  line.append(title, number, bar);
  return line;
}

function cell(kind, text) {
  const made = document.createElement(kind);
  made.textContent = text;
  return made;
}

const small = (text) => cell('small', text);
