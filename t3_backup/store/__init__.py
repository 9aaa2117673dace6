"""The repository on the disk: folders, names, manifests, locks, staged files."""
