"""Install, link and remove the versions of T3, and know which program each account runs."""
