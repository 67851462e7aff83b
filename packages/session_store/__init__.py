"""The session store as pip lays it down: in one package, what a checkout has at its top."""
