"""The optimisations of the service, each beside the plain way it stands for: what it saves of the operation it serves.

`plain` has the plain ways, `operations` what is measured with and without one, `catalogue` which belongs to which.
"""
