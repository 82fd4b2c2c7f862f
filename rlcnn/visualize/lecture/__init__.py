"""The figures of a course on convolutional networks: parts, each some commands, and their page."""
