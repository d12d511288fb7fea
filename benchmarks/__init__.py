"""Measurements beside other programs, on one machine in one run. Started by scripts/bench."""
