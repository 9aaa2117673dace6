"""All that is known of T3 Code.

Files, ledger, versions, pairing, servers, who is at work.
"""
