"""pf_stream beside its peers: the same records and the same jobs, measured from outside. See docs/performance.md."""
