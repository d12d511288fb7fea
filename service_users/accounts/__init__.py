"""Who has an account, how they come in and go, and what has been refused since."""
