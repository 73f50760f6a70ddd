"""Studies that ship with the package, each with the question it asks."""

if __name__ != "miras_search.studies":
    raise ImportError("import this package as miras_search.studies, not as studies")
