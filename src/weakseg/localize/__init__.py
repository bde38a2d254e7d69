"""Class activation maps and the seeds drawn from them."""
