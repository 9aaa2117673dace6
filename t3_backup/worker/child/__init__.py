"""The only code that runs as the user, and the only code that parses a user's bytes."""
