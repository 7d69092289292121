"""The joint choice of a model's size, its pruning, ranks and number formats: docs/search.md."""
