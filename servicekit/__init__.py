"""The base of every service: errors, envelope, settings, logs, web kit, database. Imports nothing of ours."""
