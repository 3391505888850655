"""Who may be on the line: the server's CA, its certificates, and the register of devices. A host's part."""
