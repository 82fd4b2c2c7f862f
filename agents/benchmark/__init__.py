"""How fast training is: beside what its parts permit, and beside other libraries."""
