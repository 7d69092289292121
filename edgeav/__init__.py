"""edgeav: compress audio-visual speech recognition models and run them on small devices.

Importing this package loads nothing heavy; each subpackage owns its own imports.
"""

__version__ = "0.1.0"
