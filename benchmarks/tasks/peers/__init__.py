"""Programs of the peers, run in the peers' environments. Each is a creator (`python -m …`) and what its workers run."""
