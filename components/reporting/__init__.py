"""From files under `artifacts/` to one table and one page; loads no model and no data."""
