"""Journeys: the language, its checks, the picture and the pure next-step rule. Only `table` and `service` know of rows."""
