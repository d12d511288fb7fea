"""The whole system beside two other stacks: their rows, requests and processes are here."""
