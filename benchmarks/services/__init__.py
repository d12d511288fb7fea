"""The services one by one, beside those of two other stacks."""
