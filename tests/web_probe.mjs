// Answers test_web.py with what the page's modules compute: {"ask": name, ...} as JSON on stdin, JSON on stdout.
// Arrays travel as files of raw little-endian numbers beside the question.

import { readFile } from 'node:fs/promises';
import { webcrypto } from 'node:crypto';
import { join } from 'node:path';

globalThis.crypto ??= webcrypto; // node 18 lacks what browsers have
globalThis.navigator ??= { userAgent: 'node', hardwareConcurrency: 1 };

const SOURCE = new URL('../devices/web/src/', import.meta.url);
const source = (name) => import(new URL(name, SOURCE));

const bytes = async (path) => new Uint8Array(await readFile(path)).buffer;
const floats = async (path) => new Float32Array(await bytes(path));
const pictures = async ({ path, width, height, count }) => {
  const all = new Uint8Array(await bytes(path));
  return Array.from({ length: count }, (_, i) => ({
    data: all.subarray(i * width * height, (i + 1) * width * height),
    width,
    height,
  }));
};

const answers = {
  async mel({ waveform, settings }) {
    const { logMel, normalizeMel } = await source('mel.js');
    return Array.from(normalizeMel(logMel(settings)(await floats(waveform)), settings));
  },

  async inputs({ waveform, mouth, present, features }) {
    const { featureMaker } = await source('features.js');
    const clip = {
      waveform: waveform && (await floats(waveform)),
      mouth: mouth && new Uint8Array(await bytes(mouth)),
      present,
    };
    const out = featureMaker(features)(clip);
    return (
      out && { ...out, audio: Array.from(out.audio), video: Array.from(out.video), presence: Array.from(out.presence) }
    );
  },

  async ctc({ logProbs, presence, spec }) {
    const { decode } = await source('ctc.js');
    return decode(await floats(logProbs), spec, Float32Array.from(presence));
  },

  async address({ search, folders }) {
    const { asked } = await source('address.js');
    try {
      return asked(search, folders);
    } catch (error) {
      return { refused: error.message };
    }
  },

  async readings({ answers, presence, audio, video, spec }) {
    const { surest } = await source('readings.js');
    const given = [];
    const run = async (inputs) => {
      given.push({
        presence: Array.from(inputs.presence),
        audio: Array.from(inputs.audio),
        video: Array.from(inputs.video),
      });
      return Float32Array.from(answers[given.length - 1]);
    };
    const inputs = {
      audio: Float32Array.from(audio),
      video: Float32Array.from(video),
      presence: Float32Array.from(presence),
      steps: presence.length / 2,
    };
    const { reading, logProbs } = await surest(run, spec)(inputs);
    return { reading, given, logProbs: Array.from(logProbs) };
  },

  async bundle({ folder }) {
    const { readBundle, BundleError } = await source('bundle.js');
    try {
      const { spec, model, golden } = await readBundle((name) => bytes(join(folder, name)));
      return { name: spec.name, model: model.length, golden: golden.map((entry) => entry.name) };
    } catch (error) {
      if (error instanceof BundleError) return { error: error.message };
      throw error;
    }
  },

  async golden({ folder, runtime }) {
    const { readBundle } = await source('bundle.js');
    const { openEngine, verifyGolden } = await source('engine.js');
    const bundle = await readBundle((name) => bytes(join(folder, name)));
    const ort = await import(runtime);
    return verifyGolden(bundle, await openEngine(ort, bundle, 1));
  },

  /** An engine that knows the golden answers and gives zeros for everything else; `off` falsifies it. */
  async profile({ folder, off, workload }) {
    const { readBundle, labels } = await source('bundle.js');
    const { measure, machine } = await source('profile.js');
    const bundle = await readBundle((name) => bytes(join(folder, name)));
    const answer = ({ presence }) => {
      const steps = presence.data.length / 2;
      const known = bundle.golden.find(({ arrays }) => arrays.presence.data.length === 2 * steps);
      const data = known ? known.arrays.log_probs.data : new Float32Array(steps * labels(bundle.spec));
      return { log_probs: { data: data.map((value) => value + off) } };
    };
    const ort = {
      env: { wasm: {}, versions: { web: '1' } },
      Tensor: function (_, data, shape) {
        if (data.length !== shape.reduce((a, b) => a * b)) throw new Error(`${data.length} numbers are no ${shape}`);
        Object.assign(this, { data });
      },
      InferenceSession: { create: async () => ({ run: async (feeds) => answer(feeds) }) },
    };
    try {
      return await measure(ort, bundle, { importMs: 1, threads: 1, machine: machine() }, workload);
    } catch (error) {
      return { error: error.message };
    }
  },

  async percentile({ values, percents }) {
    const { percentile } = await source('profile.js');
    return percents.map((percent) => percentile(values, percent));
  },

  async resample({ waveform, from, chunks }) {
    const { Resampler } = await source('resample.js');
    const samples = await floats(waveform);
    const resampler = new Resampler(from);
    const out = [];
    for (let start = 0; start < samples.length; start += chunks)
      out.push(...resampler.push(samples.subarray(start, start + chunks)));
    return [...out, ...resampler.flush()];
  },

  async faces({ clip, cascade }) {
    const { faceFinder } = await source('haar.js');
    const find = faceFinder(JSON.parse(await readFile(cascade)));
    const before = performance.now();
    const found = (await pictures(clip)).map(find);
    return { found, ms: (performance.now() - before) / clip.count };
  },

  async mouth({ clip, faces }) {
    const { MouthFollower } = await source('mouth.js');
    const all = await pictures(clip);
    const follower = new MouthFollower((picture) => faces[all.indexOf(picture)]);
    all.forEach((picture, frame) => follower.push(frame, picture));
    const { mouth, present } = follower.mouth(0, clip.count);
    return { mouth: Array.from(mouth), present };
  },

  async path({ faces, frames }) {
    const { followPath } = await source('mouth.js');
    return followPath(new Map(faces), frames);
  },

  async area({ clip, width, height }) {
    const { area } = await source('pixels.js');
    return Array.from(area((await pictures(clip))[0], width, height).data);
  },

  async gray({ rgba, width, height }) {
    const { gray } = await source('pixels.js');
    return Array.from(gray(new Uint8Array(await bytes(rgba)), width, height).data);
  },

  async grid({ times }) {
    const { PictureGrid } = await source('clock.js');
    const grid = new PictureGrid(0);
    return times.flatMap((time, i) => grid.push(time, i));
  },

  async track({ packets, from, to }) {
    const { SoundTrack } = await source('clock.js');
    const track = new SoundTrack(0);
    for (const { samples, time } of packets) track.push(Float32Array.from(samples), time);
    return Array.from(track.read(from, to));
  },

  async segments({ levels, perSecond, longest }) {
    const { Segmenter } = await source('speech.js');
    const segmenter = new Segmenter(perSecond, longest);
    return levels.map((level) => segmenter.push(level)).filter(Boolean);
  },

  async snr({ levels, noise }) {
    const { snrDb } = await source('speech.js');
    return snrDb(levels, noise);
  },

  async agreed({ before, now }) {
    const { agreed } = await source('speech.js');
    return agreed(before, now);
  },
};

let question = '';
for await (const part of process.stdin) question += part;
const asked = JSON.parse(question);
process.stdout.write(JSON.stringify(await answers[asked.ask](asked)));
