"""The faults, across tie order, masks, fingerprints, merge, locks, migrations and sealing."""

from typing import NamedTuple


class Mutation(NamedTuple):
    """One fault: a text of the package, which occurs once in its file, and what stands there instead."""

    name: str
    file: str
    """Below ``extraction_assets``."""
    old: str
    new: str
    tests: tuple[str, ...]
    """Files of tests below ``extraction_assets_tests``, or single tests; at least one test of them has to fail."""


MUTATIONS = (
    Mutation(
        "equal maxima: the later sample first",
        "engine/selection/select.py",
        "        (pairs.samples, bits_for(num_samples)),",
        "        (num_samples - 1 - pairs.samples, bits_for(num_samples)),",
        ("engine/selection/test_select.py",),
    ),
    Mutation(
        "a maximum of exactly min_activation enters",
        "engine/selection/pairs.py",
        "(maxima > floor).nonzero(as_tuple=True)",
        "(maxima >= floor).nonzero(as_tuple=True)",
        ("engine/selection/test_select.py",),
    ),
    Mutation(
        "padding counts",
        "engine/corpora/samples.py",
        "counted = np.array(arrays.attention_mask[rows])",
        "counted = np.ones_like(arrays.attention_mask[rows])",
        ("engine/corpora/test_samples.py",),
    ),
    Mutation(
        "special tokens count",
        "engine/corpora/samples.py",
        "counted &= ~arrays.special_tokens_mask[rows]",
        "pass",
        ("engine/corpora/test_samples.py",),
    ),
    Mutation(
        "exclude_first_positions leaves one too many",
        "engine/corpora/samples.py",
        "counted[:, : settings.exclude_first_positions] = False",
        "counted[:, : max(0, settings.exclude_first_positions - 1)] = False",
        ("engine/corpora/test_samples.py",),
    ),
    Mutation(
        "min_activation has no part in a table's fingerprint",
        "catalog.py",
        '*_values("top_k_examples", "min_activation"),',
        '*_values("top_k_examples"),',
        ("planning/test_dependency_matrix.py::test_exactly_these_assets_go_stale",),
    ),
    Mutation(
        "the model's dtype has no part in the activations' fingerprint",
        "catalog.py",
        '            *_covered_by("hook_output", "language_model.dtype"),\n',
        "",
        ("planning/test_dependency_matrix.py::test_exactly_these_assets_go_stale",),
    ),
    Mutation(
        "options of encode have no part in an SAE's fingerprint",
        "planning/weights_fingerprints.py",
        'return fingerprint_if_more("sae", files, **{**sae_facts(sae.checkpoint), **options})',
        'return fingerprint_if_more("sae", files, **sae_facts(sae.checkpoint))',
        ("planning/test_plan.py::test_options_of_encode_make_features_stale_and_their_defaults_do_not",),
    ),
    Mutation(
        "a merge keeps one example too many",
        "engine/selection/deferred.py",
        "order = order[rank_within(groups, ranking.num_groups) < ranking.sizes(groups)]",
        "order = order[rank_within(groups, ranking.num_groups) <= ranking.sizes(groups)]",
        ("engine/selection/test_merge.py",),
    ),
    Mutation(
        "a hash as high as the threshold is not drawn",
        "engine/selection/draws.py",
        "torch.stack([hashes <= thresholds[of_all], hashes <= thresholds[of_interval]])",
        "torch.stack([hashes < thresholds[of_all], hashes < thresholds[of_interval]])",
        ("engine/selection/test_draws.py",),
    ),
    Mutation(
        "a hash repeats the sign of its 64 bits",
        "engine/selection/hashing.py",
        "return number >> bits & (_ALL_64 >> bits)",
        "return number >> bits",
        ("engine/selection/test_hashing.py",),
    ),
    Mutation(
        "draws of a part of the chunks pass for those of all",
        "assets/examples/drawn.py",
        "        if draws is None:\n            self._heap = None\n",
        "        if draws is None:\n            return\n",
        ("assets/examples/test_draws.py",),
    ),
    Mutation(
        "writers of SQLite begin as readers do",
        "database/backends/sqlite/__init__.py",
        '"BEGIN IMMEDIATE" if writes else "BEGIN"',
        '"BEGIN"',
        ("database/writing/test_replacing.py::test_merges_at_once_keep_all_their_rows",),
    ),
    Mutation(
        "writers of PostgreSQL take no lock",
        "database/backends/postgresql/__init__.py",
        "connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK_KEY)))",
        "del connection",
        ("database/writing/test_replacing.py::test_merges_at_once_keep_all_their_rows",),
    ),
    Mutation(
        "the first migration leaves a column out",
        "database/migrations/versions/0001_first_tables.py",
        '        sa.Column("mean_activation", sa.Double),\n',
        "",
        ("database/test_database.py::test_migrations_make_the_tables_that_the_code_declares",),
    ),
    Mutation(
        "a new database lacks what a migration does beside the tables",
        "database/backends/postgresql/__init__.py",
        "for statement in _AS_THEY_ARE:",
        "for statement in ():",
        ("database/test_schema.py",),
    ),
    Mutation(
        "examples of an older database come in any order",
        "database/migrations/rows_to_lists.py",
        "FROM {_TABLE} ORDER BY extraction_id, neuron_index, rank\n",
        "FROM {_TABLE} ORDER BY extraction_id, neuron_index, rank DESC\n",
        ("database/test_lists_migration.py",),
    ),
    Mutation(
        "a fault of a line hides those of features that are not there",
        "database/labels.py",
        "    if faults:\n",
        "    if lines.faults and len(faults) == len(lines.faults):\n",
        ("database/test_labels.py",),
    ),
    Mutation(
        "a checksum is not compared",
        "stores/sealed.py",
        "if _checksum([data], at) != stored:",
        "if len(_checksum([data], at)) != len(stored):",
        ("stores/test_sealed.py",),
    ),
    Mutation(
        "a file has its name before it is on the disk",
        "stores/sealed.py",
        """            sync(temporary)
            if before_rename is not None:
                before_rename()
                os.utime(temporary)  # newer than what it has waited for, whose age is compared with it
            if path.is_dir():  # a folder in the file's place
                set_aside(path)
            os.replace(temporary, path)
""",
        """            if before_rename is not None:
                before_rename()
                os.utime(temporary)
            if path.is_dir():  # a folder in the file's place
                set_aside(path)
            os.replace(temporary, path)
            sync(path)
""",
        ("stores/test_sealed.py",),
    ),
    Mutation(
        "Llama Scope: the threshold is compared with features of normalised inputs as it is",
        "engine/saes/formats/llama_scope.py",
        "threshold * of_threshold for name",
        "threshold for name",
        ("engine/saes/formats/test_llama_scope.py",),
    ),
    Mutation(
        "Llamascopium: features keep the norms of the decoder that select them",
        "engine/saes/sae.py",
        "firings.values / self._selection_scale[firings.features]",
        "firings.values",
        ("engine/saes/formats/test_llamascopium.py",),
    ),
    Mutation(
        "the gain of the final norm is left out",
        "engine/directions/final_norm.py",
        "return rows * self.gain.to(rows.device)",
        "return rows",
        ("engine/directions/test_unembedding.py", "engine/directions/test_logit_lens.py"),
    ),
    Mutation(
        "a LayerNorm's mean is not subtracted",
        "engine/directions/final_norm.py",
        "rows = rows - rows.mean(dim=1, keepdim=True) if self.is_centred else rows",
        "rows = rows + 0",
        ("engine/directions/test_logit_lens.py",),
    ),
    Mutation(
        "what is multiplied before it is added counts as the stream",
        "engine/directions/stream.py",
        '_SUM = {"add", "add_"}',
        '_SUM = {"add", "add_", "mul"}',
        ("engine/directions/test_stream.py",),
    ),
    Mutation(
        "of equal logits the higher token id comes first",
        "engine/directions/top.py",
        "columns, order = columns.sort(dim=1)",
        "columns, order = columns.sort(dim=1, descending=True)",
        ("engine/directions/test_top.py",),
    ),
    Mutation(
        "equal logits at the end of the list are taken as they come",
        "engine/directions/top.py",
        "        if len(tied):",
        "        if False:",
        ("engine/directions/test_top.py",),
    ),
    Mutation(
        "a feature is its own nearest row",
        "engine/directions/nearest.py",
        "        if is_itself:",
        "        if False:",
        ("engine/directions/test_nearest.py",),
    ),
    Mutation(
        "directions do not depend on the other SAEs",
        "catalog.py",
        'fingerprint_parts=("model", "sae", "written", "other_saes", "display"),',
        'fingerprint_parts=("model", "sae", "written", "display"),',
        ("planning/test_dependency_matrix.py::test_exactly_these_assets_go_stale",),
    ),
    Mutation(
        "top tokens: equal counts go to the higher token",
        "engine/relations/token_sums.py",
        "(token, token_bits))",
        "((1 << token_bits) - 1 - token, token_bits))",
        ("engine/relations/test_top_tokens.py",),
    ),
    Mutation(
        "neighbours: those that are tied with the last one are dropped",
        "engine/relations/counting.py",
        "keep = jaccard >= np.partition(jaccard, -top)[-top]",
        "keep = jaccard > np.partition(jaccard, -top)[-top]",
        ("engine/relations/test_neighbours.py",),
    ),
    Mutation(
        "the token after a sample's end is padding",
        "engine/relations/parts.py",
        "np.where(mask[:, 1:], token_ids[:, 1:], NO_TOKEN)",
        "token_ids[:, 1:]",
        ("engine/relations/test_top_tokens.py",),
    ),
)
