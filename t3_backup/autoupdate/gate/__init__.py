"""Try a version of T3 in a sandbox before anybody is moved to it."""
