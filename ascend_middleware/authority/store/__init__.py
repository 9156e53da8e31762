"""What the authority remembers: actions, keys, registers and the audit log, in one database."""
