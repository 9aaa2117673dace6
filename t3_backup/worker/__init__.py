"""Root's side: ask an unprivileged process, supervise it, believe nothing."""
