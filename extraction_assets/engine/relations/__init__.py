"""What features have to do with tokens and with each other: top tokens, co-firing neighbours, flags.

Everything is exact over the samples that are looked at, and the same whatever the chunks, the groups that they are read
in, or the device. ``parts`` -> ``totals`` -> ``top_tokens``, ``neighbours``, ``flags``.
"""
