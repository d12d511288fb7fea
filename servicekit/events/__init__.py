"""Events between services: outbox, relay, inbox; CloudEvents on the wire."""
