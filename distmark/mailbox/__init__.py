"""A mailbox of this installation's own: a real SMTP server for demos and tests, and a store in which every message can be read."""
