"""The endpoints of the REST API, one file for each subject, the table of them, and the OpenAPI document."""
