// Pictures as {data: Uint8Array, width, height}, one gray level a pixel: from the camera's colors, smaller, and cut at
// sub-pixel places. The same pixels as OpenCV's to within a gray level; tests/test_web_pixels compares them.

/** Colors of a canvas (RGBA) -> gray by Rec. 601, which is a video's own luma. */
export function gray(rgba, width, height) {
  const data = new Uint8Array(width * height);
  for (let i = 0, j = 0; i < data.length; i++, j += 4) {
    data[i] = (19595 * rgba[j] + 38470 * rgba[j + 1] + 7471 * rgba[j + 2] + 32768) >> 16;
  }
  return { data, width, height };
}

/** The picture with a short side of at most `side`, and its scale. */
export function shrink(picture, side) {
  const scale = Math.min(1, side / Math.min(picture.width, picture.height));
  if (scale === 1) return { small: picture, scale };
  return {
    small: area(
      picture,
      Math.max(1, Math.round(picture.width * scale)),
      Math.max(1, Math.round(picture.height * scale)),
    ),
    scale,
  };
}

/** The part [left, left + width) x [top, top + height), as far as the picture goes; says where it begins. */
export function part(picture, left, top, width, height) {
  const [x, y] = [clamp(left, 0, picture.width - 1), clamp(top, 0, picture.height - 1)];
  const [w, h] = [clamp(left + width, x + 1, picture.width) - x, clamp(top + height, y + 1, picture.height) - y];
  const data = new Uint8Array(w * h);
  for (let row = 0; row < h; row++) {
    const start = (y + row) * picture.width + x;
    data.set(picture.data.subarray(start, start + w), row * w);
  }
  return { data, width: w, height: h, left: x, top: y };
}

/** A square of `side` whole pixels around a point between pixels; edges are repeated (cv2.getRectSubPix). */
export function squareAround({ data, width, height }, x, y, side) {
  const [left, top] = [x - (side - 1) / 2, y - (side - 1) / 2];
  const [x0, y0] = [Math.floor(left), Math.floor(top)];
  const [u, v] = [left - x0, top - y0];
  const out = new Uint8Array(side * side);
  for (let row = 0; row < side; row++) {
    const [above, below] = [y0 + row, y0 + row + 1].map((at) => clamp(at, 0, height - 1) * width);
    for (let column = 0; column < side; column++) {
      const [a, b] = [clamp(x0 + column, 0, width - 1), clamp(x0 + column + 1, 0, width - 1)];
      const upper = data[above + a] * (1 - u) + data[above + b] * u;
      out[row * side + column] = upper * (1 - v) + (data[below + a] * (1 - u) + data[below + b] * u) * v + 0.5;
    }
  }
  return { data: out, width: side, height: side };
}

/** Any size -> (toHeight, toWidth): means of areas downwards, between neighbours upwards (cv2.INTER_AREA). */
export function area(picture, toWidth, toHeight) {
  const [xs, ys] = [weights(picture.width, toWidth), weights(picture.height, toHeight)];
  const rows = new Float32Array(picture.height * toWidth);
  for (let y = 0; y < picture.height; y++) {
    for (let x = 0; x < toWidth; x++) {
      let sum = 0;
      for (let i = 0, at = y * picture.width + xs[x].first; i < xs[x].shares.length; i++)
        sum += picture.data[at + i] * xs[x].shares[i];
      rows[y * toWidth + x] = sum;
    }
  }
  const data = new Uint8Array(toWidth * toHeight);
  for (let y = 0; y < toHeight; y++) {
    for (let x = 0; x < toWidth; x++) {
      let sum = 0.5;
      for (let i = 0; i < ys[y].shares.length; i++) sum += rows[(ys[y].first + i) * toWidth + x] * ys[y].shares[i];
      data[y * toWidth + x] = sum;
    }
  }
  return { data, width: toWidth, height: toHeight };
}

/** Bilinear, centers of pixels matched, as OpenCV's INTER_LINEAR_EXACT. */
export function bilinear({ data, width, height }, toWidth, toHeight) {
  const out = new Uint8Array(toWidth * toHeight);
  const [xs, ys] = [taps(width, toWidth), taps(height, toHeight)];
  for (let y = 0; y < toHeight; y++) {
    const [upper, lower, v] = ys[y];
    for (let x = 0; x < toWidth; x++) {
      const [left, right, u] = xs[x];
      const above = data[upper * width + left] * (1 - u) + data[upper * width + right] * u;
      const below = data[lower * width + left] * (1 - u) + data[lower * width + right] * u;
      out[y * toWidth + x] = above * (1 - v) + below * v + 0.5;
    }
  }
  return { data: out, width: toWidth, height: toHeight };
}

function taps(from, to) {
  return Array.from({ length: to }, (_, i) => {
    const place = Math.min(Math.max(((i + 0.5) * from) / to - 0.5, 0), from - 1);
    const low = Math.floor(place);
    return [low, Math.min(low + 1, from - 1), place - low];
  });
}

const known = new Map(); // a face keeps its size for seconds

function weights(from, to) {
  const key = `${from}:${to}`;
  if (!known.has(key))
    known.set(
      key,
      Array.from({ length: to }, (_, i) => (from >= to ? covered(i, from / to, from) : between(i, from, to))),
    );
  return known.get(key);
}

/** The shares that the pixels under [i, i + 1) of the smaller picture have in it. */
function covered(i, scale, from) {
  const [start, stop] = [i * scale, Math.min((i + 1) * scale, from)];
  const first = Math.min(Math.floor(start + 1e-9), from - 1);
  const last = Math.max(first + 1, Math.min(Math.ceil(stop - 1e-9), from));
  const shares = Array.from(
    { length: last - first },
    (_, k) => Math.max(0, Math.min(stop, first + k + 1) - Math.max(start, first + k)) / (stop - start),
  );
  return { first, shares };
}

/** OpenCV's INTER_AREA upwards: a pixel keeps its level, but for the strip in which it passes into the next. */
function between(i, from, to) {
  const first = Math.min(Math.floor((i * from) / to), from - 1);
  const share = i + 1 - ((first + 1) * to) / from;
  const next = share <= 0 || first === from - 1 ? 0 : share - Math.floor(share);
  return { first, shares: next ? [1 - next, next] : [1] };
}

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
