"""A T3 version bump that can be taken back, data included."""
