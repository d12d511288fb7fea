"""What goes over the wire and how long it may take, for servers and clients alike."""
