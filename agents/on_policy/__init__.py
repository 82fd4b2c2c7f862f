"""What PPO and PQN share: agents that learn from rollouts, in epochs of minibatches."""
