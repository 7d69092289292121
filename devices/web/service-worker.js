// Two services. The page works without a network once it was loaded: what is fetched is kept, and given when the server
// does not answer (never before, so that a replaced model is seen). And the two headers that give WebAssembly threads
// are added, for servers that do not send them.

const KEPT = 'edgeav-1';
const NEEDED = [
  './',
  'index.html',
  'style.css',
  'bundles/list.json',
  'vendor/face.json',
  'vendor/ort.wasm.min.mjs',
  'vendor/ort-wasm-simd-threaded.mjs',
  'vendor/ort-wasm-simd-threaded.wasm',
  ...[
    'address',
    'bundle',
    'capture',
    'clock',
    'ctc',
    'engine',
    'features',
    'fft',
    'haar',
    'main',
    'mel',
    'microphone-worklet',
    'mouth',
    'pixels',
    'profile',
    'readings',
    'recognizer',
    'resample',
    'session',
    'speech',
    'view',
  ].map((name) => `src/${name}.js`),
];

self.addEventListener('install', (event) => event.waitUntil(keepAll()));
self.addEventListener('activate', (event) => event.waitUntil(self.clients.claim()));
self.addEventListener('fetch', (event) => {
  if (event.request.method === 'GET' && event.request.url.startsWith(self.registration.scope))
    event.respondWith(answer(event.request));
});

async function keepAll() {
  const cache = await caches.open(KEPT);
  await Promise.all(NEEDED.map((name) => cache.add(name).catch(() => null))); // what is not installed yet is kept later
  for (const url of await bundleFiles(cache)) await cache.add(url).catch(() => null);
  await self.skipWaiting();
}

/** The files of the first model: what the page loads by itself. Others are kept when they are picked. */
async function bundleFiles(cache) {
  const list = await cache.match('bundles/list.json');
  const first = list && (await list.json())[0];
  if (!first) return [];
  const base = `bundles/${encodeURIComponent(first.folder)}/`;
  const spec = await (await fetch(`${base}bundle.json`)).json();
  return ['bundle.json', ...Object.keys(spec.files)].map((name) => base + name);
}

async function answer(request) {
  const cache = await caches.open(KEPT);
  try {
    const fresh = await fetch(request);
    if (fresh.ok && fresh.status !== 206) await cache.put(request, fresh.clone());
    return isolated(fresh);
  } catch (error) {
    const kept = await cache.match(request, { ignoreSearch: true });
    if (kept) return isolated(kept);
    throw error;
  }
}

function isolated(response) {
  const headers = new Headers(response.headers);
  headers.set('Cross-Origin-Opener-Policy', 'same-origin');
  headers.set('Cross-Origin-Embedder-Policy', 'require-corp');
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
