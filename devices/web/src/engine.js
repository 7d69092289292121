// A bundle's model in ONNX Runtime Web, and the proof that it computes here what it computed where it was exported.

import { decode } from './ctc.js';
import { BundleError, labels } from './bundle.js';
import { featureMaker } from './features.js';

export const MEL_TOLERANCE = 1e-4;

/**
 * @param {object} ort the module onnxruntime-web
 * @param {{spec, model: Uint8Array}} bundle as readBundle gives it
 * @returns {Promise<(inputs: {audio, video, presence, steps}) => Promise<Float32Array>>} inputs -> (N, V) log-probabilities
 */
export async function openEngine(ort, { spec, model }, threads) {
  ort.env.wasm.numThreads = threads;
  ort.env.logLevel = 'error';
  const session = await ort.InferenceSession.create(model, {
    executionProviders: ['wasm'],
    graphOptimizationLevel: 'all',
  });
  return async ({ audio, video, presence, steps }) => {
    const arrays = { mel: audio, samples: audio, video, presence };
    const feeds = Object.fromEntries(
      spec.inputs.map(({ name, shape }) => [
        name,
        new ort.Tensor(
          'float32',
          arrays[name],
          shape.map((side) => sideOf(side, steps)),
        ),
      ]),
    );
    const { log_probs: out } = await session.run(feeds);
    if (out.data.length !== steps * labels(spec))
      throw new BundleError(`The model gave ${out.data.length} numbers for ${steps} steps.`);
    return out.data;
  };
}

/**
 * Replay the golden vectors: features from the waveform, log-probabilities, transcripts.
 * @returns {Promise<Array<{name, mel, logProbs, tolerance, transcript, expected, ok}>>} largest differences of each
 */
export async function verifyGolden({ spec, golden }, run) {
  const results = [];
  for (const { name, arrays, transcript, tolerance } of golden) {
    const presence = arrays.presence.data;
    const inputs = {
      audio: (arrays.mel ?? arrays.samples)?.data,
      video: arrays.video?.data,
      presence,
      steps: presence.length / 2,
    };
    const logProbs = await run(inputs);
    const found = {
      name,
      tolerance,
      expected: transcript,
      transcript: decode(logProbs, spec, presence).text,
      logProbs: largestDifference(logProbs, arrays.log_probs.data),
      mel: featureDifference(spec, arrays),
    };
    results.push({ ...found, ok: found.logProbs <= tolerance && found.mel <= MEL_TOLERANCE });
  }
  return results;
}

/** 0 where the case has no sound. */
function featureDifference({ features }, { waveform, mel, samples }) {
  if (!waveform || !(mel ?? samples)) return 0;
  const made = featureMaker({ ...features, video: null })({ waveform: waveform.data, mouth: null, present: [] });
  return largestDifference(made.audio, (mel ?? samples).data.subarray(0, made.audio.length));
}

/** Infinity for lengths that differ and for NaN. */
function largestDifference(found, expected) {
  if (found.length !== expected.length) return Infinity;
  let largest = 0;
  for (let i = 0; i < found.length; i++) largest = Math.max(largest, Math.abs(found[i] - expected[i]));
  return Number.isNaN(largest) ? Infinity : largest;
}

/** "8N" -> 8 * steps; "1" and 80 are what they say. */
export function sideOf(side, steps) {
  if (typeof side === 'number') return side;
  return side.endsWith('N') ? steps * Number(side.slice(0, -1) || 1) : Number(side);
}
