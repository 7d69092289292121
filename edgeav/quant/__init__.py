"""Which parts of a model are quantized, named by what they do, for every engine alike."""
