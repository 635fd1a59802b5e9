"""Open recordings, describe their tables, query and check them."""
