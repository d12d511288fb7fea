"""Writes docs/reference and .env.example from declarations in the code. Start reading in `__main__.py`."""
