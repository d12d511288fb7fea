"""Task workers, measured."""
