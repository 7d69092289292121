// The page: picks a model, opens what devices there are, shows what a session says. See session.js for the work.

import { asked } from './address.js';
import { openCamera, openMicrophone, reason } from './capture.js';
import { faceFinder } from './haar.js';
import { Session } from './session.js';
import { element, say, showCaption, showFacts, showLevel, showMouth, showTimes, sign, spectrogram } from './view.js';

const ROOT = new URL('../', import.meta.url);
const ENDS = { camera: 'The camera is gone', microphone: 'The microphone is gone' };
const page = { asked: null, session: null, loaded: null, closers: {}, missing: {}, finals: [], facts: {} };
const worker = new Worker(new URL('recognizer.js', import.meta.url), { type: 'module' });
const waiting = new Map();
let lastId = 0;

worker.onmessage = ({ data }) => {
  if (data.state) say(data.state);
  if (data.loaded) ready(data.loaded);
  if (data.id) settle(data);
  else if (data.error) say(data.error, true);
};
worker.onerror = (event) => say(`The recognizer failed to start: ${event.message ?? 'see the console'}`, true);

/** The pixels and samples move to the worker, they are not copied. */
const recognize = (clip) => ask({ recognize: clip }, [clip.waveform?.buffer, clip.mouth?.buffer].filter(Boolean));

/** Asks the worker; rejects with what it says. */
function ask(question, moved = []) {
  const id = ++lastId;
  worker.postMessage({ ...question, id }, moved);
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}

function settle({ id, result, error }) {
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (!error) return resolve(result);
  say(error, true);
  return reject(new Error(error));
}

async function listModels() {
  const models = await json(
    'bundles/list.json',
    'There is no model here yet. Type: python devices/web/install.py --bundle FOLDER',
  );
  element('models').replaceChildren(
    ...models.map(({ folder, precision, mb }) => new Option(`${folder} · ${precision} · ${mb} MB`, folder)),
  );
  page.asked = asked(
    location.search,
    models.map(({ folder }) => folder),
  );
  element('models').value = page.asked.model;
  element('models').disabled = false;
  load();
}

function load() {
  stop();
  page.loaded = null;
  element('start').disabled = element('profile').disabled = true;
  const load = new URL(`bundles/${encodeURIComponent(element('models').value)}/`, ROOT).href;
  worker.postMessage({ load, readings: page.asked.readings });
}

function ready(loaded) {
  page.loaded = loaded;
  element('start').disabled = element('profile').disabled = false;
  const [worst, count] = [(key) => Math.max(0, ...loaded.golden.map((entry) => entry[key])), loaded.golden.length];
  page.facts = {
    model: `${loaded.spec.name}, ${(loaded.spec.files[loaded.spec.model].bytes / 1e6).toFixed(1)} MB, loaded in ${(loaded.loadMs / 1000).toFixed(1)} s`,
    verified: count
      ? `${count} golden ${count === 1 ? 'clip' : 'clips'} here: log-mel within ${worst('mel').toExponential(0)}, same words`
      : 'files by sha256; the bundle brings no golden clip',
    threads: `${loaded.threads}${crossOriginIsolated ? '' : ' (reload for more: the page is not isolated yet)'}`,
  };
  showFacts(page.facts);
  showTimes({});
  say('Ready. Start asks for the camera and the microphone.');
}

async function start() {
  element('start').disabled = true;
  const findFaces = await finder();
  const { spec } = page.loaded;
  const drawSound = spectrogram(element('spectrogram'));
  page.session = new Session({ spec, findFaces, recognize, tell, drawSound });
  const wanted = { camera: spec.features.video && findFaces && camera, microphone: spec.features.audio && microphone };
  page.missing = {};
  await Promise.all(
    Object.entries(wanted)
      .filter(([, open]) => open)
      .map(([name, open]) => attempt(name, open)),
  );
  if (!Object.keys(page.closers).length) return stop();
  element('start').textContent = 'Stop';
  element('start').disabled = false;
  sayWhatIsThere();
}

async function attempt(name, open) {
  try {
    page.closers[name] = await open();
    sign(name, true);
  } catch (error) {
    lose(name, `No ${name}: ${reason(error)}`);
  }
}

const camera = () =>
  openCamera(
    element('video'),
    (rgba, width, height, seconds) => page.session?.picture(rgba, width, height, seconds + page.asked.lipsS),
    () => lose('camera', ENDS.camera),
  );
const microphone = () =>
  openMicrophone(
    (...sound) => page.session?.samples(...sound),
    () => lose('microphone', ENDS.microphone),
  );

/** A device is missing or went: say so, go on with the other. */
function lose(name, why) {
  delete page.closers[name];
  page.missing[name] = why;
  sign(name, 'missing');
  if (name === 'camera') showMouth(null);
  sayWhatIsThere();
}

function sayWhatIsThere() {
  const missing = Object.values(page.missing);
  const left = Object.keys(page.closers);
  const rest =
    { camera: 'Going on with lips alone.', microphone: 'Going on with sound alone.' }[left[0]] ??
    'Nothing is left to caption.';
  say(missing.length ? `${missing.join('. ')}. ${rest}` : 'Listening.', missing.length > 0);
  element('nocamera').hidden = 'camera' in page.closers;
}

function stop() {
  for (const close of Object.values(page.closers)) close();
  Object.assign(page, { session: null, closers: {} });
  element('video').srcObject = null;
  element('nocamera').hidden = false;
  for (const name of ['camera', 'face', 'microphone', 'speech']) if (!(name in page.missing)) sign(name, false);
  showMouth(null);
  Object.assign(element('start'), { textContent: 'Start', disabled: !page.loaded });
}

function tell({ caption, level, face, times, mouth }) {
  if (level) showLevel(level);
  if (face !== undefined) sign('face', face);
  if (mouth !== undefined) showMouth(mouth);
  if (caption) showCaption(caption, page.loaded.spec.steps.per_second);
  if (caption?.final && caption.words.length)
    page.finals.push({ text: caption.words.join(' '), snr_db: caption.snr, times_ms: times });
  if (times && caption.words.length) showSpeed(times);
}

function showSpeed(times) {
  showTimes(times);
  showFacts({
    'real-time factor': `${times.rtf.toFixed(3)}: ${(times.rtf * times.seconds).toFixed(2)} s of work for ${times.seconds.toFixed(1)} s`,
    'caption after its end': `${Math.round(times.waited)} ms, after a pause of 0.6 s`,
    ...page.facts,
  });
}

/** What was measured, for a person to paste or a program to read: no number without its machine. */
function report() {
  const { loaded, finals } = page;
  return {
    device: {
      user_agent: navigator.userAgent,
      cores: navigator.hardwareConcurrency,
      emulated: false,
    },
    runtime: 'onnxruntime-web 1.30.0, wasm',
    threads: loaded?.threads,
    bundle: loaded?.spec.name,
    precision: loaded?.spec.precision,
    model_sha256: loaded?.spec.files[loaded.spec.model].sha256,
    load_ms: loaded?.loadMs,
    golden: loaded?.golden,
    captions: finals,
  };
}

async function finder() {
  try {
    return (page.finder ??= faceFinder(
      await json('vendor/face.json', 'The face cascade is missing. Type: python devices/web/install.py'),
    ));
  } catch (error) {
    lose('camera', error.message);
    return null;
  }
}

async function json(path, otherwise) {
  const answer = await fetch(new URL(path, ROOT));
  if (!answer.ok) throw new Error(otherwise);
  return answer.json();
}

async function copy() {
  await navigator.clipboard.writeText(JSON.stringify(report(), null, 1));
  element('copy').textContent = 'Copied';
  setTimeout(() => (element('copy').textContent = 'Copy measurements'), 1500);
}

/** With camera and microphone closed: a picture between two inferences would be measured too. */
async function profile() {
  stop();
  element('start').disabled = element('profile').disabled = true;
  try {
    save('edgeav-profile.json', await ask({ profile: true }));
    say('Measured: edgeav profile BUNDLE --device browser --measured edgeav-profile.json');
  } finally {
    element('start').disabled = element('profile').disabled = !page.loaded;
  }
}

function save(name, data) {
  page.profile = data;
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([`${JSON.stringify(data, null, 1)}\n`], { type: 'application/json' }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

async function keepForOffline() {
  if (!navigator.serviceWorker) return;
  await navigator.serviceWorker.register(new URL('service-worker.js', ROOT));
  await navigator.serviceWorker.ready;
  // A server that does not isolate the page: the service worker does, from the next load on. Once, or it would never end.
  if (!crossOriginIsolated && !sessionStorage.getItem('reloaded')) {
    sessionStorage.setItem('reloaded', 'yes');
    location.reload();
  }
}

window.edgeavReport = report;
window.edgeavProfile = () => page.profile;
element('models').onchange = load;
element('start').onclick = () => (page.session ? stop() : start());
element('copy').onclick = copy;
element('profile').onclick = () => profile().catch((error) => console.warn('not measured:', error));
keepForOffline().catch((error) => console.warn('not kept for offline use:', error));
listModels().catch((error) => say(error.message, true));
