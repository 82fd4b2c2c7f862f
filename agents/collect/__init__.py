"""Acting in environments: the actor, and groups of environments in turn."""
