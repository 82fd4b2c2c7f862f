"""What makes torch fast: devices, CPU threads, copies, CUDA graphs, compilation, memory."""
