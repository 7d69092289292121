// A bundle as a browser reads it: bundle.json is checked whole, then every file against its sha256, before any use.
// The rules are those of edgeav/runtime/bundle_check.py; the two must refuse the same folders.

import { featureProblems } from './features.js';

export const SCHEMA = 'edgeav-bundle/2';
const KEYS = [
  'schema',
  'name',
  'engine',
  'precision',
  'model',
  'inputs',
  'outputs',
  'steps',
  'features',
  'tokens',
  'blank',
  'golden',
  'quality',
  'exported',
  'files',
];
const ENGINE = 'onnxruntime';

/** What the user did wrong or what is broken, said in full; anything else that is thrown is a mistake of ours. */
export class BundleError extends Error {}

/**
 * Read and verify a bundle.
 * @param {(name: string) => Promise<ArrayBuffer>} fetchFile a file of the folder, by its name in bundle.json
 * @param {(done: number, total: number) => void} progress called with bytes
 * @returns {Promise<{spec: object, model: Uint8Array, golden: Array<object>}>}
 */
export async function readBundle(fetchFile, progress = () => {}) {
  const spec = parse(await fetchFile('bundle.json'));
  const problems = [...keyProblems(spec), ...(keyProblems(spec).length ? [] : valueProblems(spec))];
  if (problems.length) throw new BundleError(`bundle.json is not usable:\n  ${problems.join('\n  ')}`);
  const files = await verified(spec.files, fetchFile, progress);
  const golden = spec.golden.map((entry) => goldenCase(entry, files));
  return { spec, model: new Uint8Array(files[spec.model]), golden };
}

/** @returns {Promise<string>} lower-case hexadecimal sha256 of the bytes. */
export async function sha256(bytes) {
  if (!globalThis.crypto?.subtle) {
    throw new BundleError('Files cannot be verified here: browsers hash only on https:// and http://localhost pages.');
  }
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** The number of a model's outputs: the tokens, and the blank unless one of them stands for it. */
export const labels = (spec) => Math.max(spec.tokens.length, spec.blank + 1);

function parse(buffer) {
  let spec;
  try {
    spec = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(buffer));
  } catch (error) {
    throw new BundleError(`bundle.json is truncated or not JSON (${error.message}). Copy the whole folder again.`);
  }
  if (spec?.schema !== SCHEMA) {
    throw new BundleError(`bundle.json: schema is ${JSON.stringify(spec?.schema)}; this page reads "${SCHEMA}".`);
  }
  return spec;
}

function keyProblems(spec) {
  const missing = KEYS.filter((key) => !(key in spec)).map((key) => `${key}: missing`);
  return [
    ...missing,
    ...Object.keys(spec)
      .filter((key) => !KEYS.includes(key))
      .map((key) => `${key}: unknown key`),
  ];
}

function valueProblems(spec) {
  const problems = featureProblems(spec.features);
  const demand = (right, text) => right || problems.push(text);
  demand(spec.engine === ENGINE, `engine: ${spec.engine}; a browser runs only ${ENGINE}`);
  demand(Array.isArray(spec.tokens) && spec.tokens.every((token) => typeof token === 'string'), 'tokens: not strings');
  demand(spec.blank >= 0 && spec.blank <= spec.tokens.length, `blank: ${spec.blank} is neither a token nor after them`);
  demand(typeof spec.files[spec.model] === 'object', `model: ${spec.model} is not listed in files`);
  for (const key of ['per_second', 'min', 'max']) demand(spec.steps[key] > 0, `steps.${key}: ${spec.steps[key]}`);
  for (const [name, entry] of Object.entries(spec.files))
    demand(entryIsGood(name, entry), `files: ${name} is no entry`);
  for (const entry of spec.golden) problems.push(...goldenProblems(entry, spec.files));
  return problems;
}

const entryIsGood = (name, entry) =>
  !name.startsWith('/') && !name.split('/').includes('..') && /^[0-9a-f]{64}$/.test(entry?.sha256) && entry.bytes >= 0;

function goldenProblems(entry, files) {
  return Object.entries(entry.files)
    .filter(([, { file, shape }]) => files[file]?.bytes !== 4 * product(shape))
    .map(([key, { file, shape }]) => `golden ${entry.name}.${key}: ${file} does not hold shape ${shape}`);
}

const product = (sides) => sides.reduce((whole, side) => whole * side, 1);

/** Every listed file, fetched and hashed; all that is wrong is said at once. */
async function verified(entries, fetchFile, progress) {
  const files = {};
  const problems = [];
  const total = Object.values(entries).reduce((sum, entry) => sum + entry.bytes, 0);
  let done = 0;
  for (const [name, entry] of Object.entries(entries)) {
    files[name] = await fetchFile(name);
    const found = await sha256(files[name]);
    if (found !== entry.sha256) problems.push(changed(name, entry, found, files[name].byteLength));
    progress((done += entry.bytes), total);
  }
  if (problems.length) throw new BundleError(`The bundle is damaged:\n  ${problems.join('\n  ')}`);
  return files;
}

const changed = (name, entry, found, bytes) =>
  `${name}: changed or truncated: sha256 is ${found}, expected ${entry.sha256}; ${bytes} bytes, expected ${entry.bytes}`;

function goldenCase(entry, files) {
  const arrays = Object.entries(entry.files).map(([key, { file, shape }]) => [
    key,
    { shape, data: floats(files[file]) },
  ]);
  return {
    name: entry.name,
    transcript: entry.transcript,
    tolerance: entry.tolerance,
    arrays: Object.fromEntries(arrays),
  };
}

/** Raw little-endian float32 -> numbers, on a machine of either byte order. */
function floats(buffer) {
  const view = new DataView(buffer);
  return Float32Array.from({ length: buffer.byteLength / 4 }, (_, index) => view.getFloat32(4 * index, true));
}
