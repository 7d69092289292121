// Camera and microphone, each on its own: one that is missing, refused or unplugged is said and does not stop the other.

const CAMERA = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 }, facingMode: 'user' };
// The browser's own clean-up is left off: the model was trained on sound as it is, and the meter shall tell the truth.
const MICROPHONE = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
const BUSY_MS = 40; // for a picture: longer than it lasts
const MOST_DELAY_MS = 1000; // of a picture between the camera and the page
const REASONS = {
  NotAllowedError: 'permission was refused; the icon beside the address gives it back',
  NotFoundError: 'there is none',
  NotReadableError: 'another program is using it',
  OverconstrainedError: 'it cannot do what was asked',
};

/** Why a device cannot be had, in words. */
export const reason = (error) => REASONS[error.name] ?? error.message;

/**
 * Pictures as they come.
 * @param {HTMLVideoElement} video shows them
 * @param {(rgba: Uint8ClampedArray, width: number, height: number, seconds: number) => void} onPicture
 * @param {() => void} onEnd the camera was unplugged
 */
export async function openCamera(video, onPicture, onEnd) {
  const stream = await media({ video: CAMERA });
  const [track] = stream.getVideoTracks();
  track.onended = onEnd;
  video.srcObject = stream;
  await video.play();
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const grab = (now, frame) => {
    const before = performance.now();
    if (track.readyState === 'ended') return;
    const [width, height] = [video.videoWidth, video.videoHeight];
    if (canvas.canvas.width !== width || canvas.canvas.height !== height)
      Object.assign(canvas.canvas, { width, height });
    canvas.drawImage(video, 0, 0);
    onPicture(canvas.getImageData(0, 0, width, height).data, width, height, taken(frame, now) / 1000);
    const took = performance.now() - before;
    setTimeout(next, took > BUSY_MS ? took : 0); // a slow machine gets fewer pictures, not a page that hangs
  };
  const next = () =>
    video.requestVideoFrameCallback ? video.requestVideoFrameCallback(grab) : requestAnimationFrame(grab);
  next();
  return () => stopped(stream);
}

/**
 * Sound as it comes, at the rate the machine has.
 * @param {(samples: Float32Array, rateHz: number, seconds: number) => void} onSound seconds: when the last one was heard
 */
export async function openMicrophone(onSound, onEnd) {
  const stream = await media({ audio: MICROPHONE });
  stream.getAudioTracks()[0].onended = onEnd;
  const context = new AudioContext();
  await context.audioWorklet.addModule(new URL('microphone-worklet.js', import.meta.url));
  const node = new AudioWorkletNode(context, 'microphone', { numberOfOutputs: 0 });
  const { latency = 0 } = stream.getAudioTracks()[0].getSettings(); // seconds; what the browser knows of it
  node.port.onmessage = ({ data }) => onSound(data.samples, context.sampleRate, performance.now() / 1000 - latency);
  context.createMediaStreamSource(stream).connect(node);
  await context.resume();
  return () => Promise.all([context.close(), stopped(stream)]);
}

function media(wanted) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error('browsers give it only to https:// and http://localhost pages');
  }
  return navigator.mediaDevices.getUserMedia(wanted);
}

/** When a picture was taken, in ms; not every camera's clock is the page's. */
const taken = (frame, now) =>
  Math.abs(now - (frame?.captureTime ?? Infinity)) < MOST_DELAY_MS ? frame.captureTime : now;

const stopped = (stream) => stream.getTracks().forEach((track) => track.stop());
