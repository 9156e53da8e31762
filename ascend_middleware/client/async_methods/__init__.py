"""The public methods, awaitable: made of `methods/` by tools/make_async.py."""
