"""How exact the numbers of a run are: enclosures, contraction certificates, running error estimates."""
