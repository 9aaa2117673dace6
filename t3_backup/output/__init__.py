"""All that is said: console, journal, log file, sd_notify, texts and JSON."""
