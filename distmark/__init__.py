"""distmark: journeys written once by a brand, sent by the people who know the customer. Imports no Prefect."""
