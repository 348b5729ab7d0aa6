"""The studio: what the command line does, in the browser, on pages of the service's own."""
