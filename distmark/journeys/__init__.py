"""What a journey is: its language, checks, picture and the pure next-step rule. Rows and use cases are in `table` and `service`; all else is pure."""
