"""The last import of the server in ``processes``: what was imported before it is no garbage.

A garbage collection in a forked process looks at what that process made alone: it would else visit, and so copy, the
half a million objects that it shares with the server.
"""

import gc

gc.collect()
gc.freeze()
