"""How fast something learns: learners, timing in turn, memory, in processes of their own."""
