"""What governs an application, for every command line: its routes listed, one request explained."""
