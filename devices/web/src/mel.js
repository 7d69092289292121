// Log-mel energies with every setting of bundle.json's features.audio, as edgeav/runtime/log_mel.py computes them:
// float64 up to the power spectrum, rounded to float32 where that file rounds. It explains why.

import { powerSpectrum } from './fft.js';

const RATE_HZ = 16000;
const NORMALIZE_EPSILON = 1e-5;
const HZ_PER_MEL = 200 / 3; // Slaney's scale: linear below 1 kHz, logarithmic above
const BREAK_HZ = 1000;
const BREAK_MEL = BREAK_HZ / HZ_PER_MEL;
const LOG_STEP = Math.log(6.4) / 27;

/** @returns {(waveform: Float32Array) => Float32Array} (S,) at 16 kHz -> (S // hop, mels), not yet normalized. */
export function logMel(settings) {
  const { mels, hop, n_fft: size } = settings;
  const spectrum = powerSpectrum(size);
  const filters = melFilters(settings);
  const shape = hann(settings);
  return (waveform) => {
    const wave = padded(emphasized(waveform, settings.pre_emphasis), settings);
    const count = Math.floor(waveform.length / hop);
    const out = new Float32Array(count * mels);
    const frame = new Float64Array(size);
    for (let t = 0; t < count; t++) {
      for (let i = 0; i < size; i++) frame[i] = wave[t * hop + i] * shape[i];
      fillBands(out, t * mels, spectrum(frame), filters, settings);
    }
    return out;
  };
}

/** Changes `mel` (T, mels): mean 0 and deviation 1 in every band over the utterance (ddof 1), if asked. */
export function normalizeMel(mel, settings) {
  if (settings.normalize === 'none') return mel;
  const count = mel.length / settings.mels;
  if (count < 2) return mel.fill(0);
  for (let band = 0; band < settings.mels; band++) normalizeBand(mel, band, settings.mels, count);
  return mel;
}

/** (mels) triangles on the mel scale, of unit area or height: for each its first bin and its weights. */
export function melFilters(settings) {
  const [toMel, toHz] = settings.mel_scale === 'htk' ? [htkMel, htkHz] : [slaneyMel, slaneyHz];
  const [low, high] = [toMel(settings.low_hz), toMel(settings.high_hz)];
  const step = (high - low) / (settings.mels + 1);
  const edgesHz = Array.from({ length: settings.mels + 2 }, (_, i) => toHz(i > settings.mels ? high : low + i * step));
  return edgesHz.slice(1, -1).map((_, band) => triangle(edgesHz, band, settings));
}

function triangle(edgesHz, band, settings) {
  const [lower, tip, upper] = corners(edgesHz.slice(band, band + 3), settings);
  const height = settings.mel_norm === 'area' ? 2 / (edgesHz[band + 2] - edgesHz[band]) : 1;
  const weights = Array.from({ length: Math.floor(settings.n_fft / 2) + 1 }, (_, bin) =>
    Math.fround(Math.max(0, Math.min((bin - lower) / (tip - lower), (upper - bin) / (upper - tip))) * height),
  );
  const first = Math.max(
    0,
    weights.findIndex((weight) => weight > 0),
  );
  return { first, weights: Float32Array.from(weights.slice(first, weights.findLastIndex((weight) => weight > 0) + 1)) };
}

/** Lower corner, tip and upper corner of a triangle, counted in bins of the transform. */
function corners(edgesHz, settings) {
  if (settings.mel_corners === 'exact') return edgesHz.map((hz) => (hz * settings.n_fft) / RATE_HZ);
  const [lower, middle, upper] = edgesHz.map((hz) => Math.floor((hz * (settings.n_fft + 1)) / RATE_HZ));
  const tip = Math.max(middle, lower + 1);
  return [lower, tip, Math.max(upper, tip + 1)];
}

function emphasized(waveform, factor) {
  const out = new Float64Array(waveform.length);
  for (let i = 0; i < out.length; i++) out[i] = i ? waveform[i] - factor * waveform[i - 1] : waveform[0];
  return out;
}

function padded(wave, settings) {
  const side = Math.floor(settings.n_fft / 2);
  const out = new Float64Array(wave.length + 2 * side);
  out.set(wave, side);
  if (settings.padding !== 'reflect') return out;
  const period = Math.max(1, 2 * (wave.length - 1));
  for (let i = 0; i < out.length; i++) {
    const place = (((i - side) % period) + period) % period;
    out[i] = wave[Math.min(place, period - place)];
  }
  return out;
}

function fillBands(out, at, power, filters, { log_floor: floor, log_guard: guard }) {
  const least = Math.fround(floor);
  filters.forEach(({ first, weights }, band) => {
    let energy = 0;
    for (let i = 0; i < weights.length; i++) energy += Math.fround(power[first + i]) * weights[i];
    const kept = guard === 'add' ? Math.fround(Math.fround(energy) + least) : Math.max(Math.fround(energy), least);
    out[at + band] = Math.log(kept);
  });
}

function normalizeBand(mel, band, mels, count) {
  let sum = 0;
  for (let t = 0; t < count; t++) sum += mel[t * mels + band];
  const mean = sum / count;
  let squares = 0;
  for (let t = 0; t < count; t++) squares += (mel[t * mels + band] - mean) ** 2;
  const scale = Math.sqrt(squares / (count - 1)) + NORMALIZE_EPSILON;
  for (let t = 0; t < count; t++) mel[t * mels + band] = (mel[t * mels + band] - mean) / scale;
}

/** (n_fft,): Hann with zeros on both sides, as torch.stft centers a window shorter than the transform. */
function hann({ window, n_fft: size, window_function: kind }) {
  const out = new Float32Array(size);
  const left = Math.floor((size - window) / 2);
  const intervals = kind === 'hann-periodic' ? window : window - 1;
  for (let i = 0; i < window; i++) out[left + i] = intervals ? 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / intervals) : 1;
  return out;
}

const slaneyMel = (hz) => (hz < BREAK_HZ ? hz / HZ_PER_MEL : BREAK_MEL + Math.log(hz / BREAK_HZ) / LOG_STEP);
const slaneyHz = (mel) => (mel < BREAK_MEL ? mel * HZ_PER_MEL : BREAK_HZ * Math.exp(LOG_STEP * (mel - BREAK_MEL)));
const htkMel = (hz) => 2595 * Math.log10(1 + hz / 700);
const htkHz = (mel) => 700 * (10 ** (mel / 2595) - 1);
