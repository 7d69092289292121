// How fast is this bundle in this browser? The profile that `edgeav profile` makes (edgeav/profiling.py: Profile), field
// for field. What a browser does not tell is null, with the reason under not_measured: never zero, never left out.

import { BundleError } from './bundle.js';
import { openEngine, sideOf, verifyGolden } from './engine.js';

export const WORKLOAD = { seconds: 4, iterations: 50, warmup: 5 };
const NOT_MEASURED = {
  cpu_ms: 'browsers do not tell the CPU time of a page',
  peak_rss_mb: 'browsers do not tell the memory of a page',
  runtime_rss_mb: 'browsers do not tell the memory of a page',
  operators: 'the page does not ask the engine for them',
  instructions: 'browsers have no instruction counter',
  energy: 'needs a meter',
  temperature: 'browsers do not tell it',
  'throttling over 10 minutes': 'browsers do not tell it',
  'chunks of a stream': 'the model takes whole utterances',
};

/**
 * Opens the model once more, replays its golden vectors, then times noise of `seconds`, one inference after another.
 * @param ort the module onnxruntime-web; `place`: {importMs, threads, machine}
 * @returns {Promise<object>} plain data
 */
export async function measure(ort, bundle, place, workload = WORKLOAD, progress = () => {}) {
  const { spec } = bundle;
  const inputs = noise(spec, workload.seconds);
  const [loadMs, run] = await timed(() => openEngine(ort, bundle, place.threads));
  const [firstMs] = await timed(() => run(inputs));
  progress('checking the golden vectors');
  const golden = await verifyGolden(bundle, run);
  if (!golden.every(({ ok }) => ok)) throw new BundleError('A golden vector comes out wrong here. Nothing was timed.');
  const wall = await timeRuns(run, inputs, workload, progress);
  return {
    schema: 'edgeav-profile/1',
    ...identity(spec),
    ...place.machine,
    runtime: `onnxruntime-web ${ort.env.versions?.web ?? 'of an unknown version'}, wasm`,
    threads: place.threads,
    seconds: workload.seconds,
    steps: inputs.steps,
    n: workload.iterations,
    warmup: workload.warmup,
    import_ms: place.importMs,
    load_ms: loadMs,
    first_ms: firstMs,
    wall_ms: summary(wall),
    cpu_ms: null,
    rtf: percentile(wall, 50) / (1000 * workload.seconds),
    peak_rss_mb: null,
    runtime_rss_mb: null,
    golden: { cases: golden.length, max_abs: Math.max(0, ...golden.map(({ logProbs }) => logProbs)) },
    not_measured: NOT_MEASURED,
  };
}

/** What the browser says of the machine: little. Its name stands where a device's board does. */
export function machine() {
  return {
    device: 'browser',
    emulated: false,
    arch: 'wasm32',
    cpu: 'not told by browsers',
    isa: ['simd128'],
    governor: null,
    board: navigator.userAgent,
    cores: navigator.hardwareConcurrency ?? null,
  };
}

/** Which bundle this was, to the byte. */
function identity(spec) {
  const stem = `${spec.model.split('.')[0]}.`;
  const files = Object.entries(spec.files);
  const hashes = files.filter(([name]) => !name.startsWith('golden/')).map(([name, { sha256 }]) => [name, sha256]);
  const bytes = files.filter(([name]) => name.startsWith(stem)).reduce((sum, [, file]) => sum + file.bytes, 0);
  const { name, engine, precision } = spec;
  return { bundle: name, engine, precision, model_sha256: Object.fromEntries(hashes), model_bytes: bytes };
}

/** Noise of the right shapes and scale, every step present: no kernel's time depends on what is said. */
export function noise(spec, seconds) {
  const steps = Math.ceil(spec.steps.per_second * seconds);
  if (steps < spec.steps.min || steps > spec.steps.max) throw new BundleError(`${seconds} s: the model takes others`);
  const made = { steps };
  for (const { name, shape } of spec.inputs) {
    const values = new Float32Array(shape.map((side) => sideOf(side, steps)).reduce((a, b) => a * b));
    if (name === 'presence') {
      const present = [spec.features.audio, spec.features.video].map((track) => (track ? 1 : 0));
      made.presence = values.map((_, i) => present[i % 2]);
    } else made[name === 'video' ? 'video' : 'audio'] = values.map(normal);
  }
  return made;
}

const normal = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());

async function timeRuns(run, inputs, { iterations, warmup }, progress) {
  for (let i = 0; i < warmup; i++) await run(inputs);
  const wall = [];
  while (wall.length < iterations) {
    if (wall.length % 10 === 0) progress(`measuring: run ${wall.length + 1} of ${iterations}`);
    wall.push((await timed(() => run(inputs)))[0]);
  }
  return wall;
}

async function timed(work) {
  const start = performance.now();
  const result = await work();
  return [performance.now() - start, result];
}

function summary(ms) {
  const [p50, p90, p99] = [50, 90, 99].map((percent) => percentile(ms, percent));
  return { p50, p90, p99, mean: ms.reduce((sum, value) => sum + value, 0) / ms.length, min: Math.min(...ms) };
}

/** numpy's: linear between the two values around it. */
export function percentile(values, percent) {
  const sorted = Float64Array.from(values).sort();
  const place = (percent / 100) * (sorted.length - 1);
  const below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (place - below);
}
