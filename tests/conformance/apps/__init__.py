"""The applications of the conformance table, by framework; nothing here is shared with the package."""
