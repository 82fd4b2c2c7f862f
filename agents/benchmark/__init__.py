"""Speed of training, compared with the bound that its parts set and with other libraries.

Import the modules, not this package: measured processes load only what they need.
"""
