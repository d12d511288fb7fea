"""What every service gets: errors, envelope, settings, logs, web kit, database. Imports nothing of ours."""
