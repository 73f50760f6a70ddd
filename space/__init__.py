"""The design space: the four choices, their gates, execution, rules and presets."""

if __name__ != "miras_search.space":
    raise ImportError("import this package as miras_search.space, not as space")
