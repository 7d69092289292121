// What the page's address asks for: ?model=FOLDER, ?readings=surest, ?lips_ms=120.

const READINGS = ['one', 'surest'];

/**
 * @param {string} search the address's part behind the ?
 * @param {string[]} folders of the models that are there
 * @returns {{model: string, readings: string, lipsS: number}}
 * @throws Error with everything that is wrong
 */
export function asked(search, folders) {
  const given = new URLSearchParams(search);
  const model = given.get('model') ?? folders[0];
  // Once, or by sound alone and by lips alone too where both leave the model unsure: up to 3 times the work.
  const readings = given.get('readings') ?? 'one';
  // The lips wait that long: a Bluetooth microphone is late, and no browser tells by how much.
  const lipsMs = Number(given.get('lips_ms') ?? 0);
  const wrong = [
    folders.includes(model) ? '' : `?model=${model}: not here; allowed: ${folders.join(', ')}`,
    READINGS.includes(readings) ? '' : `?readings=${readings}: allowed: ${READINGS.join(', ')}`,
    Number.isFinite(lipsMs) ? '' : `?lips_ms=${given.get('lips_ms')}: a number of milliseconds, like 120`,
  ].filter(Boolean);
  if (wrong.length) throw new Error(`Change the address. ${wrong.join('; ')}`);
  return { model, readings, lipsS: lipsMs / 1000 };
}
