"""Three machines, a PostgreSQL, two destinations, and all that goes wrong with them: nothing may be lost or doubled."""
