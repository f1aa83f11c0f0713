"""What Stripe knows of a tenant, and what it is told."""
