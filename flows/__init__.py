"""The rooms that import Prefect: compiling, launching and running journeys. Importing this package alone imports none of it."""
