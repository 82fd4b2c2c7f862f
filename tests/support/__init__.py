"""Helpers of several test directories: tiny games, runs and agents, and a pretend GPU."""
