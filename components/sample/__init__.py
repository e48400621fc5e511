"""The bundled synthetic data set: NTU-format files from a kinematic body model."""
