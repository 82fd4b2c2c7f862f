"""The face of stable-baselines3: its users' arguments, checked, and the base of our agents."""
