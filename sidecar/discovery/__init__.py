"""Where upstreams are, for those that a configuration names by a DNS name: names are looked up again and again."""
