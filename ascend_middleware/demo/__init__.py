"""The demonstration: the embedded authority, a governed FastAPI application, and real requests between them."""
