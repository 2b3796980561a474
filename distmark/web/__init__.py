"""Pages, public links and the REST API. This room knows HTTP and the texts on pages; every rule belongs to the rooms below."""
