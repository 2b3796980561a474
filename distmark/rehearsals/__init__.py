"""A journey tried on oneself: the whole way as real messages to one's own inbox, with waits of seconds."""
