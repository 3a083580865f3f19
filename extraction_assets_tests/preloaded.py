"""The last import of the server in ``processes``: what was imported before it is no garbage, and what each process
would make for itself is made.

A garbage collection in a forked process looks at what that process made alone: it would else visit, and so copy, the
half a million objects that it shares with the server.
"""

import gc

from transformers.conversion_mapping import get_checkpoint_conversion_mapping

get_checkpoint_conversion_mapping("llama")  # compiles a thousand patterns, for all kinds of models
gc.collect()
gc.freeze()
