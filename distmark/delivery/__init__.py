"""Delivery: whether a message may be sent now (policy, priority, throttle, rates), and its hand-over to a channel."""
