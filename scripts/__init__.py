"""The commands of the checkout; scripts/README.md lists them."""
