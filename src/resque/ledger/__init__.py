"""The stored records, the SQLite ledger, export, import and the bundled history."""
