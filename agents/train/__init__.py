"""A training run: built from a configuration, trained, checkpointed, and resumed."""
