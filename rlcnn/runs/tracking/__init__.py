"""Where a run's metrics, films and models are recorded: its own file, TensorBoard, and services."""
