"""Writes docs/reference and .env.example from the code's own declarations. Begin in `__main__.py`."""
