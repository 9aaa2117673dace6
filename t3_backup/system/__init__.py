"""The kernel and systemd, typed; no policy."""
