"""/stripe/webhook."""
