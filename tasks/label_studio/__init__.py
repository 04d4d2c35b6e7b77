"""Everything that talks to a Label Studio server."""
