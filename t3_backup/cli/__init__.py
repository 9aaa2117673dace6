"""The command `t3-backup-state`, one module a subcommand."""
