"""The database: tables, migrations, the writer and the queries."""
