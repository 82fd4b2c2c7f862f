"""Searches for hyperparameters: propose trials, train and prune them, re-run the best, report."""
