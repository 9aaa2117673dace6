"""The command line of `t3-backup-state`: each command has a module and a function of its name."""
