"""The verbs of the command line, one file a group. Heavy libraries are imported inside the verbs that need them."""
