"""Nexmark on pf_stream: the auction queries that stream processors are compared by (Tucker et al., 2002; Apache Beam's suite)."""
