// Reading a clip once more by sound alone and by lips alone where both together leave the model unsure. The counterpart
// of edgeav/runtime/readings.py, which says why.

const SURE = 0.5; // nats: both together are believed below that
const LEAST = 0.5; // a reading that speaks in fewer steps than this share of the fullest one's has missed something

/**
 * @param {(inputs) => Promise<Float32Array>} run inputs -> (N, V) log-probabilities
 * @returns {(inputs) => Promise<{logProbs: Float32Array, reading: 'both' | 'sound' | 'lips'}>}
 */
export function surest(run, { blank }) {
  return async (inputs) => {
    const found = [['both', await run(inputs)]];
    if (judge(found[0][1], inputs.presence, blank).doubt > SURE)
      for (const [name, one] of alone(inputs)) found.push([name, await run(one)]);
    const judged = found.map(([reading, logProbs]) => ({
      reading,
      logProbs,
      ...judge(logProbs, inputs.presence, blank),
    }));
    const fullest = Math.max(...judged.map(({ speaks }) => speaks));
    const full = judged.filter(({ speaks }) => speaks >= LEAST * fullest);
    return full.reduce((best, other) => (other.doubt < best.doubt ? other : best));
  };
}

/** Without lips wherever something is heard, without sound wherever lips are seen; nothing where no step has both. */
export function alone(inputs) {
  const { presence, steps } = inputs;
  const both = Array.from({ length: steps }, (_, step) => presence[2 * step] > 0 && presence[2 * step + 1] > 0);
  if (!both.includes(true)) return [];
  return [
    ['sound', { ...inputs, video: without(inputs.video, both), presence: absent(presence, both, 1) }],
    ['lips', { ...inputs, audio: without(inputs.audio, both), presence: absent(presence, both, 0) }],
  ];
}

/** Zeros in the stretches of `stream` that belong to `steps`. */
function without(stream, steps) {
  const kept = stream.slice();
  const width = stream.length / steps.length;
  steps.forEach((gone, step) => gone && kept.fill(0, step * width, (step + 1) * width));
  return kept;
}

function absent(presence, steps, column) {
  const kept = presence.slice();
  steps.forEach((gone, step) => gone && (kept[2 * step + column] = 0));
  return kept;
}

/** Mean entropy in nats, each step weighed by how certainly it is no blank; in how many steps the blank is not best. */
export function judge(logProbs, presence, blank) {
  const steps = presence.length / 2;
  const width = logProbs.length / steps;
  let [sum, weights, speaks] = [0, 0, 0];
  for (let step = 0; step < steps; step++) {
    if (!presence[2 * step] && !presence[2 * step + 1]) continue;
    const row = logProbs.subarray(step * width, (step + 1) * width);
    const weight = 1 - Math.exp(row[blank]);
    sum -= weight * row.reduce((total, value) => total + Math.exp(value) * value, 0);
    weights += weight;
    speaks += row.some((value) => value > row[blank]);
  }
  return { doubt: sum / Math.max(weights, 1e-3), speaks };
}
