"""The durable record of what passed: its lines, their delivery and recovery, and the background worker."""
