"""Minds: PPO and DQN agents on a shared convolutional encoder."""
