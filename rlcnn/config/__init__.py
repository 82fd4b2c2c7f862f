"""Options as fields of dataclasses, and the command line built from them.

- :mod:`rlcnn.config.fields`: what a field accepts, and configurations from JSON.
- :mod:`rlcnn.config.files`: configurations in the directory of a run or in a file.
- :mod:`rlcnn.config.groups`: options that several configurations have in common.
- :mod:`rlcnn.config.options`: the options of a dataclass; ``help`` shows them in groups.
- :mod:`rlcnn.config.cli`: a command line into a dataclass; ``diagnosis`` and ``hints`` say what is
  wrong with one and what its user may mean.
- :mod:`rlcnn.config.runs`: the command line that starts or resumes a run.
- :mod:`rlcnn.config.script`: a script from its start to its exit status.
"""
