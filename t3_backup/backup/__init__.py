"""One run: copy, prove, judge, publish."""
