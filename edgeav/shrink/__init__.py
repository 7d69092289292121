"""Smaller models: which units depend on each other, what they are worth, what they cost, and their removal."""
