"""Import records of other tools: MLflow runs and codecarbon files."""
