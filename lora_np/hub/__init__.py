"""What lies on disk: safetensors, model directories, names, targets, dtypes, and the families of models."""
