"""Ask an ASCEND authority "may this agent do this?" before a handler runs."""

__version__ = "0.1.0"
