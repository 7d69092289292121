// The worker that recognizes: everything heavy but the face, so that camera and microphone never wait for the model.
// Messages in: {load: url, readings}, {recognize: {waveform, mouth, present}, id} and {profile: true, id}; out: {state},
// {loaded}, {result, id}, {error}.

import { BundleError, readBundle } from './bundle.js';
import { decode } from './ctc.js';
import { openEngine, verifyGolden } from './engine.js';
import { featureMaker } from './features.js';
import { machine, measure } from './profile.js';
import { surest } from './readings.js';

const RUNTIME = new URL('../vendor/ort.wasm.min.mjs', import.meta.url);
const MOST_THREADS = 4;
let recognize = null;
let profile = null;

onmessage = async ({ data }) => {
  try {
    if (data.load) await load(data.load, data.readings);
    else postMessage({ result: await (data.profile ? profile() : recognize(data.recognize)), id: data.id });
  } catch (error) {
    postMessage({
      error: error instanceof BundleError ? error.message : `${error.name}: ${error.message}`,
      id: data.id,
    });
  }
};

async function load(folder, readings) {
  recognize = profile = null;
  const before = performance.now();
  const bundle = await readBundle(
    (name) => fetched(new URL(name, folder)),
    (done, total) => postMessage({ state: `verifying the model: ${Math.round((100 * done) / total)} %` }),
  );
  const threads = self.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency ?? 1) : 1;
  postMessage({ state: 'starting the model' });
  const importing = performance.now();
  const ort = await runtime();
  const opening = performance.now();
  const run = await openEngine(ort, bundle, threads);
  const golden = await verifyGolden(bundle, run);
  refuseWrong(golden);
  const once = async (inputs) => ({ logProbs: await run(inputs) });
  recognize = recognizer(bundle.spec, readings === 'surest' ? surest(run, bundle.spec) : once);
  const place = { importMs: opening - importing, threads, machine: machine() };
  profile = () => measure(ort, bundle, place, undefined, (state) => postMessage({ state }));
  postMessage({ loaded: { spec: bundle.spec, golden, threads, loadMs: performance.now() - before } });
}

async function fetched(url) {
  const answer = await fetch(url);
  if (!answer.ok)
    throw new BundleError(
      `${url.pathname} is not there (${answer.status}). Copy the whole bundle: install.py --bundle`,
    );
  return answer.arrayBuffer();
}

async function runtime() {
  try {
    return await import(RUNTIME);
  } catch (error) {
    throw new BundleError(`ONNX Runtime Web is missing (${error.message}). Type: python devices/web/install.py`);
  }
}

function refuseWrong(golden) {
  const wrong = golden
    .filter((entry) => !entry.ok)
    .map(
      ({ name, mel, logProbs, tolerance, transcript, expected }) =>
        `golden vector ${name} comes out wrong here: log-mel differs by ${mel.toPrecision(2)}, log-probabilities by ` +
        `${logProbs.toPrecision(3)}, allowed ${tolerance}; transcript "${transcript}", expected "${expected}"`,
    );
  if (wrong.length) throw new BundleError(`${wrong.join('\n')}\nThe model is not used.`);
}

function recognizer(spec, read) {
  const inputsOf = featureMaker(spec.features);
  return async (clip) => {
    const times = [performance.now()];
    const inputs = inputsOf(clip);
    times.push(performance.now());
    if (!inputs) return { text: '', words: [], ms: { mel: times[1] - times[0], encode: 0, decode: 0 } };
    const { logProbs } = await read(inputs);
    times.push(performance.now());
    const { text, words } = decode(logProbs, spec, inputs.presence);
    times.push(performance.now());
    return { text, words, ms: { mel: times[1] - times[0], encode: times[2] - times[1], decode: times[3] - times[2] } };
  };
}
