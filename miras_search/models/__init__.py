"""Mixer layer, block and language model around an associative memory."""
