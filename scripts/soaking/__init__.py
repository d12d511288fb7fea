"""The soak: a running system under mixed load while its processes are killed at random; see __main__.py."""
