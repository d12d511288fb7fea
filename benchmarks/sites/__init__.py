"""What work items take at the sites service: see bench.py."""
