"""What the service is compared with: each peer as a small program, and the list of them."""
