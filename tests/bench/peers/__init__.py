"""The peers that the service is compared with: each a small program, and the list of them."""
