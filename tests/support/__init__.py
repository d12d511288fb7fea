"""Shared by the tests: waiting, free ports, real servers."""
