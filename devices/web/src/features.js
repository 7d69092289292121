// From sound and mouth pictures to the arrays a model takes, as bundle.json's `features` say. The counterpart of
// edgeav/runtime/{inputs,features,clip}.py.

import { logMel, normalizeMel } from './mel.js';

export const MOUTH = 96; // pixels: side of the mouth crop
export const FPS = 25;
export const RATE_HZ = 16000;
const MIN_STEPS = 2; // a model takes no less: relative positions need a neighbour
const AUDIO_KINDS = ['log-mel', 'samples'];
const CHOICES = {
  window_function: ['hann-symmetric', 'hann-periodic'],
  mel_scale: ['slaney', 'htk'],
  mel_norm: ['area', 'none'],
  mel_corners: ['exact', 'bins'],
  padding: ['zeros', 'reflect'],
  log_guard: ['add', 'clamp'],
  normalize: ['per-band', 'none'],
};

/** What is wrong with bundle.json's `features`: settings that this page does not know would be computed wrongly. */
export function featureProblems(features) {
  const { audio, video } = features;
  const problems = [];
  const demand = (right, text) => right || problems.push(`features.${text}`);
  demand(
    features.sample_rate_hz === RATE_HZ && features.video_fps === FPS && features.mouth === MOUTH,
    `sample_rate_hz, video_fps, mouth: must be ${RATE_HZ}, ${FPS}, ${MOUTH}`,
  );
  demand(features.step_ms > 0 && (features.step_ms * FPS) % 1000 === 0, `step_ms: ${features.step_ms}`);
  demand(audio || video, 'audio and video are both null');
  if (audio) demand(AUDIO_KINDS.includes(audio.kind), `audio.kind: ${audio.kind}; known: ${AUDIO_KINDS.join(', ')}`);
  if (audio?.kind === 'log-mel') {
    for (const [key, known] of Object.entries(CHOICES))
      demand(known.includes(audio[key]), `audio.${key}: ${audio[key]}`);
    for (const key of ['mels', 'window', 'hop', 'n_fft']) demand(audio[key] >= 1, `audio.${key}: ${audio[key]}`);
    demand(audio.window <= audio.n_fft, `audio.window: ${audio.window} is more than n_fft ${audio.n_fft}`);
  }
  if (video) demand(video.crop >= 1 && video.crop <= MOUTH, `video.crop: ${video.crop}`);
  if (video) demand(['per-clip', 'fixed'].includes(video.normalize), `video.normalize: ${video.normalize}`);
  return problems;
}

/** The clock of the features: samples, audio frames and pictures in one step; 0 where the model lacks the modality. */
export function clock(features) {
  const samples = (RATE_HZ * features.step_ms) / 1000;
  const hop = features.audio?.kind === 'log-mel' ? features.audio.hop : 1;
  return {
    samples,
    hop,
    audio: features.audio ? samples / hop : 0,
    video: features.video ? (FPS * features.step_ms) / 1000 : 0,
  };
}

/**
 * Makes a clip the model's inputs.
 * @returns {(clip: {waveform: Float32Array|null, mouth: Uint8Array|null, present: boolean[]}) => object}
 *   waveform (S,) at 16 kHz, mouth (T, 96, 96) at 25 fps, present (T,) -> {audio, video, presence, steps}, or null
 *   where there is nothing to hear nor to see
 */
export function featureMaker(features) {
  const rate = clock(features);
  const listen = listener(features);
  return ({ waveform, mouth, present }) => {
    const sound = hears(waveform, features, rate) ? listen(waveform) : null;
    const seen = features.video && mouth && present.some(Boolean) ? seenSteps(present, rate.video) : null;
    if (!sound && !seen) return null;
    const width = features.audio?.kind === 'log-mel' ? features.audio.mels : 1;
    const heardSteps = sound ? Math.ceil(sound.length / width / rate.audio) : 0;
    const out = empty(features, Math.max(heardSteps, seen?.length ?? 0, MIN_STEPS));
    if (sound) out.audio.set(sound);
    for (let step = 0; step < heardSteps; step++) out.presence[2 * step] = 1;
    if (seen) placeVideo(out, mouth, seen, features.video, rate.video);
    return out;
  };
}

/** Zeros of `steps` steps: what a model is told when nothing is there. */
export function empty(features, steps) {
  const rate = clock(features);
  const width = features.audio?.kind === 'log-mel' ? features.audio.mels : 1;
  return {
    steps,
    audio: new Float32Array(steps * rate.audio * width),
    video: new Float32Array(steps * rate.video * (features.video?.crop ?? 0) ** 2),
    presence: new Float32Array(steps * 2),
  };
}

/** Digital silence and less than a frame say nothing: the model is told that there was no sound. */
const hears = (waveform, features, rate) =>
  features.audio && waveform && waveform.length >= rate.hop && waveform.some((sample) => sample !== 0);

function listener({ audio }) {
  if (!audio) return () => null;
  if (audio.kind === 'samples') return normalizeSamples;
  const energies = logMel(audio);
  return (waveform) => normalizeMel(energies(waveform), audio);
}

function normalizeSamples(waveform) {
  const mean = waveform.reduce((sum, value) => sum + value, 0) / waveform.length;
  const variance = waveform.reduce((sum, value) => sum + (value - mean) ** 2, 0) / waveform.length;
  return waveform.map((value) => (value - mean) / Math.sqrt(variance + 1e-8));
}

/** (T,) -> one for each step: whether all of its pictures show a face. */
function seenSteps(present, pictures) {
  const count = Math.ceil(present.length / pictures);
  return Array.from({ length: count }, (_, step) =>
    present.slice(step * pictures, (step + 1) * pictures).every(Boolean),
  );
}

/** Changes `out`: the pictures of the steps that show a face, cropped, and standardized without the others. */
function placeVideo(out, mouth, seen, settings, pictures) {
  const side = settings.crop;
  const shown = [];
  for (let frame = 0; frame < mouth.length / MOUTH ** 2; frame++)
    if (seen[Math.floor(frame / pictures)]) shown.push(frame);
  for (const frame of shown) cropInto(out.video, frame * side * side, mouth, frame * MOUTH * MOUTH, side);
  const [mean, deviation] = pixelScale(out.video, shown, side, settings);
  for (const frame of shown) {
    for (let i = frame * side * side; i < (frame + 1) * side * side; i++)
      out.video[i] = (out.video[i] - mean) / deviation;
  }
  seen.forEach((there, step) => (out.presence[2 * step + 1] = Number(there)));
}

function cropInto(target, to, mouth, from, side) {
  const edge = Math.floor((MOUTH - side) / 2);
  for (let y = 0; y < side; y++) {
    const row = from + (y + edge) * MOUTH + edge;
    target.set(mouth.subarray(row, row + side), to + y * side);
  }
}

function pixelScale(video, shown, side, settings) {
  if (settings.normalize === 'fixed') return [255 * settings.mean, 255 * settings.deviation];
  const count = shown.length * side * side;
  const sum = (term) =>
    shown.reduce((whole, frame) => {
      for (let i = frame * side * side; i < (frame + 1) * side * side; i++) whole += term(video[i]);
      return whole;
    }, 0);
  const mean = sum((value) => value) / count;
  return [mean, Math.sqrt(sum((value) => (value - mean) ** 2) / count) + 1e-3];
}
