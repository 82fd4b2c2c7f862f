"""Speed and memory: agents as timed learners, in turn, each in a process of its own if need be."""
