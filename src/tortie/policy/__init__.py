"""Network policy: from objects of the API to the rules of each endpoint. Pure."""
