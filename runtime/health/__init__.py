"""The checks of `edgekit doctor`: a file for each subject, which returns findings."""
