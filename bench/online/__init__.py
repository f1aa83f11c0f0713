"""How fast online inference is, beside other servers of the same model: `python -m bench.online`."""
