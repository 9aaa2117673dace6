"""T3-shaped databases and a live writer, for the demo, the tests and the benchmark."""
