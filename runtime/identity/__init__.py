"""Who this device is: its key, its certificate, and what it makes of the server's."""
