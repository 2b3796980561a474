"""What a journey is: language, checks, picture and the pure next-step rule. Only `table` and `service` know of rows."""
