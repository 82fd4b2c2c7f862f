"""Digests of short runs, to show that a change of the code changes no behaviour."""
