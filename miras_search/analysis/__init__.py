"""What the numbers say: paired differences, intervals, corrected tests, verdicts."""
