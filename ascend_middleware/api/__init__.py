"""The API, told once: its endpoints, bodies, answers; client, guard, authority and OpenAPI document read it."""
