"""What `miras-search bench` measures."""
