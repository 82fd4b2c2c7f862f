"""The face of stable-baselines3: checked arguments and environments, and our agents' base."""
