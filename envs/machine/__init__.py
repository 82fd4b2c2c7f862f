"""The machine under a process: cores, control groups, spinning threads."""
