"""What the authority stores: actions, keys, registers and the audit log, in one database."""
