"""T3-shaped databases and a live writer, for demo, tests and benchmark."""
