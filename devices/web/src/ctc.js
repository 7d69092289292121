// Greedy CTC decoding: the best output of every step, repeats merged, blanks dropped (Graves et al. 2006,
// https://dl.acm.org/doi/10.1145/1143844.1143891). The counterpart of edgeav/runtime/ctc.py.

const WORD_START = '▁'; // SentencePiece marks with it the piece that begins a word

/**
 * @param {Float32Array} logProbs (N, V) row by row
 * @param {{tokens: string[], blank: number, steps: {per_second: number}}} spec of the bundle
 * @param {Float32Array} presence (N, 2): steps with neither sound nor picture are skipped; they part equal labels
 * @returns {{text: string, words: Array<{word, startS, endS, confidence}>}}
 */
export function decode(logProbs, spec, presence) {
  const count = presence.length / 2;
  const width = logProbs.length / count;
  const best = Array.from({ length: count }, (_, step) =>
    presence[2 * step] || presence[2 * step + 1] ? argmax(logProbs, step * width, width) : spec.blank,
  );
  const words = byWord(pieces(best, logProbs, width, spec)).map((group) => word(group, spec.steps.per_second));
  const said = words.filter((entry) => entry.word); // a lone "▁" says nothing
  return { text: said.map((entry) => entry.word).join(' '), words: said };
}

function argmax(values, start, width) {
  let best = start;
  for (let i = start + 1; i < start + width; i++) if (values[i] > values[best]) best = i;
  return best - start;
}

function pieces(best, logProbs, width, { tokens, blank }) {
  const found = [];
  for (let start = 0, end; start < best.length; start = end) {
    for (end = start + 1; end < best.length && best[end] === best[start]; ) end++;
    if (best[start] === blank) continue;
    let highest = -Infinity;
    for (let step = start; step < end; step++) highest = Math.max(highest, logProbs[step * width + best[start]]);
    found.push({ text: tokens[best[start]], start, end, logProb: highest });
  }
  return found;
}

function byWord(found) {
  const words = [];
  for (const piece of found) {
    if (!words.length || piece.text.startsWith(WORD_START)) words.push([]);
    words.at(-1).push(piece);
  }
  return words;
}

function word(group, perSecond) {
  const mean = group.reduce((sum, piece) => sum + piece.logProb, 0) / group.length;
  return {
    word: group
      .map((piece) => piece.text)
      .join('')
      .replaceAll(WORD_START, ''),
    startS: group[0].start / perSecond,
    endS: group.at(-1).end / perSecond,
    confidence: Math.exp(mean),
  };
}
