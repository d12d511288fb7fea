"""What wrong logins cost everybody else: see bench.py."""
