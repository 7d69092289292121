"""What benchmarks/peers.py is made of; defaults.py alone runs in other projects' environments."""
