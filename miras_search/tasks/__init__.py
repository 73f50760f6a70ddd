"""Tasks: generators of training, validation and test data, one file each."""
