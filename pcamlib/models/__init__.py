"""The generators and the classifier."""
