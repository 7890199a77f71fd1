"""The database: connection, tables, and one store class for each kind of record."""
