"""The one database: schema, programs of SQL, and one module per noun."""
