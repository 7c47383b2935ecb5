"""The queries as users of the peers would write them."""
