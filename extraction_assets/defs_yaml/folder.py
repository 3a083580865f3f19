"""Loads a project's defs folder so that a YAML file that does not load takes nothing else with it.

Dagster's own loader gives up the whole code location for one bad file. The names of Dagster's component tree that this
needs are private, and all here; where they have moved, its own loader does the work.
"""

import hashlib
import logging
import os
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg

from extraction_assets.dagster_instance.private_names import (
    ComponentDecl,
    ComponentLoaderDecl,
    ComponentPath,
    ComponentTree,
    DefsFolderDecl,
    YamlFileDecl,
    build_component_decl_from_yaml_file,
    build_filesystem_component_decl_from_context,
    suppress_dagster_warnings,
)
from extraction_assets.defs_yaml.errors import LARGEST, explain_yaml
from extraction_assets.defs_yaml.yaml_lines import refuse_repetition
from extraction_assets.engine.corpora.visible_text import visible
from extraction_assets.execution.preview import code, escape
from extraction_assets.host.regular_files import open_regular, read_text
from extraction_assets.settings import ExtractionSettings

NOT_LOADED_METADATA = "extraction_assets/not_loaded"
"""Metadata key of the asset that replaces an extraction with a YAML file that does not load: the reason."""

FILE_METADATA = "extraction_assets/file"

_logger = logging.getLogger(__name__)


class NotLoaded(NamedTuple):
    """An extraction whose YAML file does not load."""

    file: Path
    why: str
    """One sentence, with the line where it is known."""

    @property
    def name(self) -> str:
        """Name of the folder, which most often is the extraction's."""
        return self.file.parent.name


def load_defs_folder(path_within_project: Path) -> dg.Definitions:
    """The definitions of a project's defs folder, as ``dg.load_from_defs_folder`` gives them.

    One asset, ``NAME/not_loaded``, takes the place of a ``defs.yaml`` that does not load. Its description says why, and
    the error is logged. Python files that do not load raise as they do in Dagster.
    """
    if ComponentTree is None:
        return dg.load_from_defs_folder(path_within_project=path_within_project)
    return suppress_dagster_warnings(_IsolatingTree.for_project(path_within_project).build_defs)()


def not_loaded(definitions: dg.Definitions) -> list[NotLoaded]:
    """Extractions whose YAML file did not load."""
    specs = definitions.resolve_all_asset_specs()
    stand_ins = [spec.metadata for spec in specs if NOT_LOADED_METADATA in spec.metadata]
    return [
        NotLoaded(Path(_text(metadata[FILE_METADATA])), _text(metadata[NOT_LOADED_METADATA])) for metadata in stand_ins
    ]


def _text(value: Any) -> str:
    return str(getattr(value, "value", value))


class NotLoadedComponent(dg.Component):
    """Stands for a YAML file that does not load."""

    def __init__(self, folder: Path, error: BaseException) -> None:
        self.folder, file = folder, _yaml_file(folder) or folder
        self.file = visible(str(file))
        self.why = visible(explain_yaml(error, file))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """One asset that cannot be materialized, so that the UI shows the name and the reason."""
        _logger.error("%s does not load and is left out: %s", self.file, self.why)
        below = self.folder.relative_to(context.defs_module_path).as_posix()
        name = re.sub(r"\W", "_", below, flags=re.ASCII)
        other = hashlib.sha256(os.fsencode(below)).hexdigest()[:8]  # a-b and a_b are not the same
        stand_in = dg.AssetSpec(
            [name if name == below else f"{name}_{other}", "not_loaded"],
            group_name=name,
            description=f"This extraction is left out, for {code(self.file)} does not load: {escape(self.why)}",
            metadata={NOT_LOADED_METADATA: self.why, FILE_METADATA: self.file},
            kinds={"yaml"},
        )
        return dg.Definitions(assets=[stand_in])


def _yaml_file(folder: Path) -> Path | None:
    """The YAML file that Dagster would read, a link that leads nowhere included."""
    files = (folder / name for name in ("defs.yaml", "defs.yml", "component.yaml"))
    return next((file for file in files if os.path.lexists(file)), None)


if ComponentTree is not None:

    class _IsolatingTree(ComponentTree):
        """A component tree in which a YAML file that cannot be read, loaded or built becomes a NotLoadedComponent."""

        def _get_filesystem_decl(self) -> ComponentDecl[Any]:
            loc = ComponentPath.from_path(self.defs_module_path)
            if self.state_tracker.get_cache_data(loc).component_decl is None:
                context = self.decl_load_context.for_component_loc(loc)
                self.state_tracker.set_cache_data(loc, component_decl=_declare(context, self.defs_module_path))
            declared = self.state_tracker.get_cache_data(loc).component_decl
            assert declared is not None
            return declared

        def _component_decl_tree(self) -> "dict[Any, ComponentDecl[Any]]":
            """Without the documents of files that do not load: for the UI, Dagster would load each again."""
            found = super()._component_decl_tree().items()
            return {
                loc: self._instead.get(loc, declaration)
                for loc, declaration in found
                if not self._is_document_of_one(loc)
            }

        def _is_document_of_one(self, loc: Any) -> bool:
            document = isinstance(loc, ComponentPath) and loc.instance_key is not None
            return document and loc.without_instance_key() in self._instead

        @cached_property
        def _instead(self) -> "dict[Any, ComponentDecl[Any]]":
            """Path of a file that does not load -> its replacement."""
            return {}

        def _load_component_at_loc(self, resolved_loc: Any) -> None:
            try:
                super()._load_component_at_loc(resolved_loc)
            except Exception as error:
                self._give_up(resolved_loc, error)

        def _build_defs_inner(self, resolved_loc: Any) -> dg.Definitions | None:
            try:
                names = self._unused_names(resolved_loc)
                built = super()._build_defs_inner(resolved_loc)
            except Exception as error:
                self._give_up(resolved_loc, error)
                return super()._build_defs_inner(resolved_loc)
            self._named.update(dict.fromkeys(names, resolved_loc))
            return built

        @cached_property
        def _named(self) -> dict[str, Any]:
            """Name of an extraction -> where it is declared."""
            return {}

        def _unused_names(self, loc: Any) -> list[str]:
            """Names of a file's extractions. ValueError for the second of a name: both would have the same assets."""
            found = self._component_and_context_at_loc(loc)
            components = getattr(found[0], "components", ()) if found else ()
            names = [one.name or loc.file_path.name for one in components if isinstance(one, ExtractionSettings)]
            for index, name in enumerate(names):
                if name in names[:index]:
                    raise ValueError(f"two documents of this file hold an extraction called {name!r}: give one a name")
                first = self._named.get(name, loc)
                if first != loc:
                    raise ValueError(f"another extraction is called {name!r}, in {first.file_path}: give it a name")
            return names

        def _give_up(self, loc: Any, error: BaseException) -> None:
            """Puts a NotLoadedComponent in the place of a YAML file; raises the error again for anything else."""
            declared = self.state_tracker.get_cache_data(loc).component_decl or self._component_decl_tree().get(loc)
            if not isinstance(declared, YamlFileDecl):
                raise error
            instead = self._instead[loc] = _stand_in(declared.context, loc.file_path, error)
            self.state_tracker.set_cache_data(loc, component=instead._load_component(), component_decl=instead)

    def _stand_in(context: Any, folder: Path, error: BaseException) -> ComponentLoaderDecl:
        def load(_context: Any) -> NotLoadedComponent:
            return NotLoadedComponent(folder, error)

        return ComponentLoaderDecl(context=context, loc=ComponentPath.from_path(folder), component_node_fn=load)

    def _declare(context: Any, path: Path) -> "ComponentDecl[Any] | None":
        """As ``build_filesystem_component_decl_from_context``, with folders and YAML files one by one."""
        file = _yaml_file(path)
        if file is not None:
            try:
                refuse_repetition(read_text(file, LARGEST))  # Dagster would wait for who writes to a named pipe
                return build_component_decl_from_yaml_file(context, file)
            except Exception as error:
                return _stand_in(context, path, error)
        if not path.is_dir():
            if path.suffix == ".py":
                open_regular(path).close()  # importing would wait as well
            return build_filesystem_component_decl_from_context(context)
        children = _declare_children(context, path)
        if not children:
            return None
        loc = ComponentPath.from_path(path)
        return DefsFolderDecl(context=context, loc=loc, children=children, source_tree=None, component_file_model=None)

    def _declare_children(context: Any, folder: Path) -> "Mapping[Path, ComponentDecl[Any]]":
        found = {}
        for path in sorted(folder.iterdir()):
            if path.name == "__pycache__" or (path.name.startswith(".") and path.is_dir()):
                continue
            declared = _declare(context.for_component_loc(ComponentPath.from_path(path)), path)
            if declared is not None:
                found[path] = declared
        return found
