"""The command line of `t3-backup-state`: a module and a function a command."""
