"""What the tests share: fixtures, helpers, and stand-ins, by name."""
