"""Serve this folder at http://localhost:8000 with the two headers that give WebAssembly its threads.

    python devices/web/serve.py --port 8000

Any static server will do: the page's service worker adds the headers itself from the second visit on. Python's own
http.server and nothing else. It listens on this machine alone; a phone needs https, which a tunnel or proxy adds.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).parent
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cache-Control": "no-cache",  # ask each time whether a file has changed: bundles are replaced
}


class Handler(SimpleHTTPRequestHandler):
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
        ".onnx": "application/octet-stream",
        ".f32": "application/octet-stream",
    }

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """A page of forty files need not fill the terminal."""


def open_server(port: int, folder: Path = HERE, host: str = "127.0.0.1") -> ThreadingHTTPServer:
    """A server of `folder`, not yet running; port 0 takes a free one."""
    return ThreadingHTTPServer((host, port), partial(Handler, directory=str(folder)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--host", default="127.0.0.1", help="0.0.0.0 lets other machines in; they need https to hear and see"
    )
    args = parser.parse_args()
    try:
        server = open_server(args.port, host=args.host)
    except OSError as error:
        print(f"port {args.port} cannot be used ({error.strerror}); choose another with --port", file=sys.stderr)
        return 2
    print(f"http://localhost:{server.server_port}/   (Ctrl+C ends)")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
