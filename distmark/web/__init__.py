"""Pages, public links and the REST API. Knows HTTP and what people see; every rule belongs to the rooms below."""
