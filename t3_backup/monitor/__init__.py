"""Watch over backups: status, health, metrics, attempts, HTML report, failure hooks."""
