"""Rollout and replay storage: each frame is stored once, and stacks are rebuilt from frames."""
