// Power spectrum of real frames in float64. Radix 2 (Cooley & Tukey 1965, https://doi.org/10.2307/2003354) where the
// length is a power of two, as in every bundle so far; the plain sum for other lengths, slow but as exact.

/**
 * @param {number} length samples in a frame
 * @returns {(frame: Float64Array) => Float64Array} (length,) -> (length / 2 + 1,) squared magnitudes
 */
export function powerSpectrum(length) {
  return Number.isInteger(Math.log2(length)) ? byHalves(length) : bySums(length);
}

function byHalves(length) {
  const order = reversedBits(length);
  const [cosines, sines] = turns(length, length / 2);
  const real = new Float64Array(length);
  const imaginary = new Float64Array(length);
  return (frame) => {
    for (let i = 0; i < length; i++) real[i] = frame[order[i]];
    imaginary.fill(0);
    for (let size = 2; size <= length; size *= 2) butterflies(real, imaginary, size, cosines, sines);
    return squares(real, imaginary);
  };
}

function butterflies(real, imaginary, size, cosines, sines) {
  const half = size / 2;
  const stride = real.length / size;
  for (let start = 0; start < real.length; start += size) {
    for (let k = 0, low = start; k < half; k++, low++) {
      const high = low + half;
      const [c, s] = [cosines[k * stride], sines[k * stride]];
      const re = real[high] * c + imaginary[high] * s;
      const im = imaginary[high] * c - real[high] * s;
      real[high] = real[low] - re;
      imaginary[high] = imaginary[low] - im;
      real[low] += re;
      imaginary[low] += im;
    }
  }
}

function bySums(length) {
  const [cosines, sines] = turns(length, length);
  const bins = Math.floor(length / 2) + 1;
  return (frame) => {
    const [real, imaginary] = [new Float64Array(bins), new Float64Array(bins)];
    for (let k = 0; k < bins; k++) {
      for (let n = 0; n < length; n++) {
        real[k] += frame[n] * cosines[(k * n) % length];
        imaginary[k] += frame[n] * sines[(k * n) % length];
      }
    }
    return real.map((value, k) => value * value + imaginary[k] * imaginary[k]);
  };
}

function squares(real, imaginary) {
  const power = new Float64Array(real.length / 2 + 1);
  for (let k = 0; k < power.length; k++) power[k] = real[k] * real[k] + imaginary[k] * imaginary[k];
  return power;
}

function turns(length, count) {
  const angles = Float64Array.from({ length: count }, (_, k) => (2 * Math.PI * k) / length);
  return [angles.map(Math.cos), angles.map(Math.sin)];
}

function reversedBits(length) {
  const order = new Uint32Array(length);
  for (let i = 1; i < length; i++) order[i] = (order[i >> 1] >> 1) | (i & 1 ? length >> 1 : 0);
  return order;
}
