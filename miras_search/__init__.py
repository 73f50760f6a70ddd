"""miras-search: search and ablate the design space of associative-memory sequence models.

The four choices of the Miras framework (arXiv 2504.13173) are memory architecture, attentional bias,
retention gate and memory learning algorithm. This package trains points of that space as small models,
schedules the trainings, stores what they found and tabulates the differences with their uncertainty.
"""

__version__ = "0.1.0"
