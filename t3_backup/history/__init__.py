"""What stays, and how it is kept: retention, deltas, reflinks, verification."""
