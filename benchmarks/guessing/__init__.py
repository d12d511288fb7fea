"""What the trouble of one service, or of clients, costs everybody else: see bench.py."""
