"""Corpora, what disturbs them, batches."""

BUILT_IN = ("demo", "demo-pico")  # corpora that are drawn, of two synthesizers
