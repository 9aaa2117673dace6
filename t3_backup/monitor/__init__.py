"""Watch over backups: status, health, metrics, attempts, report, failure hooks."""
