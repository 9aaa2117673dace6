"""Side-by-side measurements of ways to copy a live T3 database."""
