"""Know T3 Code: files, ledger, versions, pairing, servers, and who is at work."""
