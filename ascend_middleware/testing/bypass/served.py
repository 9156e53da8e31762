"""What a server of the bypass pack is told to serve: the user's own application, watched; see `target`."""

from .target import load

app = load()
