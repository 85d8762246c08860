"""The description of the HTTP interface (OpenAPI 3.1): `operations` is what it says, `document` how that is written."""
