"""Programs of the peers, run in the peers' environments: each has a creator (`talk`) and what its workers run."""
