"""What `edgekit doctor` looks at: one file for each subject, each giving a list of findings."""
