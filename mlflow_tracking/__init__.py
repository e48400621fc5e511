"""Everything that speaks to MLflow: runs, lineage, registry, serving."""
