"""All that is known of T3 Code: files, ledger, versions, pairing, servers, who is at work."""
