"""Versions beside the running one: deployments that become active with the next boot, and the state that they share."""
