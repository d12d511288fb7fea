"""What services tell each other: outbox, relay, inbox; CloudEvents on the wire."""
