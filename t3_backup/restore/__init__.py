"""Put a snapshot back, recover from an interruption, export."""
