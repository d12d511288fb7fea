"""Wire formats and their time limits, for servers and clients alike."""
