"""How a finished message leaves: channels, their wire forms, and when they may be used. Knows values, bytes and sockets, no tables."""
