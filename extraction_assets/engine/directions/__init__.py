"""What a feature writes, by the weights alone: the tokens that its decoder row favours, and the rows nearest to it.

``stream`` follows a pass without weights: where the final norm and the unembedding are, and whether a hook is part of
the residual stream that these read. ``final_norm`` and ``unembedding`` read their weights, ``logit_lens`` and
``nearest`` compute with them, by ``top``.
"""
