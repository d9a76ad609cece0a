"""The notice that is printed with predictions and returned by the service."""

RESEARCH_USE_ONLY = "research use only: these numbers are not a diagnosis"
