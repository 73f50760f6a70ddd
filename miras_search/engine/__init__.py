"""The driver loop: plan cells, schedule jobs, collect rows, recover."""
