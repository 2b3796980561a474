"""Registering journeys and system flows with Prefect."""
